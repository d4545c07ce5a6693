"""The things that stories are about: what each is for, and the trouble that it helps with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Thing:
    """One object, and the trouble that it helps with.

    ``need`` follows a name ("Ollo *could not see the path*"), ``deed`` follows the helper's
    name, and ``outcome`` is a clause of its own.
    """

    noun: str
    material: str
    purpose: str
    need: str
    deed: str
    outcome: str


THINGS: Final[tuple[Thing, ...]] = (
    Thing(
        "lantern",
        "brass",
        "to give light",
        "could not see the path in the dark",
        "lit the lantern",
        "the whole path was bright",
    ),
    Thing(
        "key",
        "iron",
        "to open a door",
        "could not open an old door",
        "turned the key in the lock",
        "the door swung open",
    ),
    Thing(
        "bell",
        "bronze",
        "to call friends",
        "could not call the others to supper",
        "rang the bell",
        "everyone came running",
    ),
    Thing(
        "drum",
        "wood",
        "to make music",
        "had no music for the dance",
        "beat the drum",
        "everyone began to dance",
    ),
    Thing(
        "kite",
        "paper",
        "to fly in the wind",
        "could not send a letter across the valley",
        "tied the letter to the kite",
        "the wind carried it over the trees",
    ),
    Thing(
        "map",
        "paper",
        "to find the way",
        "had lost the way home",
        "opened the map",
        "the way home was easy to find",
    ),
    Thing(
        "umbrella",
        "cloth",
        "to keep the rain away",
        "was standing in the heavy rain",
        "opened the umbrella",
        "not a drop of rain came through",
    ),
    Thing(
        "blanket",
        "wool",
        "to keep warm",
        "was shivering with cold",
        "spread out the blanket",
        "the cold was forgotten",
    ),
    Thing(
        "basket",
        "straw",
        "to carry things",
        "could not carry all the pears home",
        "filled the basket to the top",
        "not one pear was left behind",
    ),
    Thing(
        "mirror",
        "glass",
        "to see yourself",
        "had a thorn behind one ear",
        "held up the mirror",
        "the thorn was easy to pull out",
    ),
    Thing(
        "whistle",
        "tin",
        "to call for help",
        "was lost in the thick fog",
        "blew the whistle",
        "a friendly call came back through the fog",
    ),
    Thing(
        "rope",
        "grass",
        "to climb",
        "could not get out of a deep hole",
        "tied the rope to a root",
        "it was easy to climb out",
    ),
    Thing(
        "ladder",
        "wood",
        "to reach high places",
        "could not reach the highest plums",
        "set the ladder against the tree",
        "the plums were picked",
    ),
    Thing(
        "teapot",
        "clay",
        "to make tea",
        "had a sore throat",
        "made hot tea in the teapot",
        "the sore throat was gone",
    ),
    Thing(
        "compass",
        "brass",
        "to find the north",
        "did not know which way was north",
        "looked at the compass",
        "the needle pointed the right way",
    ),
    Thing(
        "candle",
        "wax",
        "to light a room",
        "was afraid of the long night",
        "lit the candle",
        "the night was not dark any more",
    ),
    Thing(
        "pencil",
        "wood",
        "to write letters",
        "could not write a letter to an old aunt",
        "wrote neatly with the pencil",
        "the letter was ready to send",
    ),
    Thing(
        "shell",
        "pearl",
        "to hear the sea",
        "missed the sound of the sea",
        "held up the shell",
        "the waves sang softly inside it",
    ),
    Thing(
        "scarf",
        "wool",
        "to keep your neck warm",
        "had hurt one leg on a stone",
        "tied the scarf around the leg",
        "it did not hurt any more",
    ),
    Thing(
        "book",
        "paper",
        "to read tales",
        "could not fall asleep",
        "read a tale from the book",
        "sleep came very gently",
    ),
    Thing(
        "flute",
        "wood",
        "to play songs",
        "felt sad and alone",
        "played a song on the flute",
        "all the sadness flew away",
    ),
    Thing(
        "broom",
        "straw",
        "to sweep the floor",
        "had a house full of dust",
        "swept the floor with the broom",
        "the house was clean again",
    ),
    Thing(
        "spoon",
        "wood",
        "to stir soup",
        "could not stir a big pot of soup",
        "stirred the pot with the spoon",
        "the soup was thick and sweet",
    ),
    Thing(
        "net",
        "string",
        "to catch things",
        "had lost a hat in the water",
        "reached out with the net",
        "the hat was safe again",
    ),
    Thing(
        "boat",
        "wood",
        "to cross the water",
        "could not cross the deep water",
        "pushed the boat into the water",
        "the other side was reached",
    ),
    Thing(
        "hammer",
        "iron",
        "to mend things",
        "could not mend a broken fence",
        "worked hard with the hammer",
        "the fence was as good as new",
    ),
)

#: How a thing in a story may look.
LOOKS: Final = ("old", "little", "shiny", "blue", "red", "green", "yellow", "lovely", "strange")
