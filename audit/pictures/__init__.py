"""Attacks on what crosses the wire while pictures are made.

``audit_pictures`` makes some with a pipeline and does all attacks on them; these are functions of
what was read from a connection's messages:

- ``read_messages``: what whoever reads them knows of a picture (a service, or a tapper of a link
  without TLS; one with TLS knows the messages' ``Sizes``);
- ``attack_prompts``: the prompt, from the text encoders' output, which crosses in both splits;
- ``attack_whole``: the picture, from what crosses with the split ``whole``;
- ``attack_deep``: the picture, from the features that cross with the split ``deep``.
"""

from audit.pictures.attacks import attack_deep, attack_whole, baselines, make_own
from audit.pictures.auditing import DEEP_FORMATS, WHOLE_FORMATS, audit_pictures
from audit.pictures.findings import PictureAttack, PicturesAudit, PictureSetting, Samples, Sizes
from audit.pictures.model import PublicModel, open_public_model
from audit.pictures.prompts import PromptAttack, PromptFound, attack_prompts, find_prompts
from audit.pictures.scores import Likeness, likeness
from audit.pictures.tapped import TappedPicture, read_messages

__all__ = [
    "DEEP_FORMATS",
    "WHOLE_FORMATS",
    "Likeness",
    "PictureAttack",
    "PictureSetting",
    "PicturesAudit",
    "PromptAttack",
    "PromptFound",
    "PublicModel",
    "Samples",
    "Sizes",
    "TappedPicture",
    "attack_deep",
    "attack_prompts",
    "attack_whole",
    "audit_pictures",
    "baselines",
    "find_prompts",
    "likeness",
    "make_own",
    "open_public_model",
    "read_messages",
]
