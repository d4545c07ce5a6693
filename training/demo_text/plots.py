"""The plots of the stories: what happens, told in beats.

Fields: ``hero``/``friend`` are kinds, ``Hero``/``Friend`` names, ``s o p`` the hero's pronouns
(subject, object, possessive; ``S P`` capitalised), ``fs fo fp fS fP`` the friend's. In questions
and answers ``hq ha`` and ``fq fa`` are some way to say who is meant.
"""

from __future__ import annotations

from typing import Final

from .plot import Ask, Beat, Plot

OPENING: Final = Beat(
    "[Once upon a time there was|There was once|Once there was|Once upon a time there lived]"
    " [{ahero} named {Hero}.|{ahero} named {Hero} who lived {home}."
    "|{acolourhero} named {Hero}, who lived {home}.|{acolourhero} named {Hero}.]",
    (
        Ask("[What was the name of the {hero}?|What was the {hero} called?|What was {p} name?]",
            "[The {hero} was called {Hero}.|{P} name was {Hero}.]"),
        Ask("[Who is the story about?|Who was the story about?]", "It is about {Hero} the {hero}."),
        Ask("Which animal was {Hero}?", "{Hero} was {ahero}."),
    ),
)  # fmt: skip

_COLOUR_ASK: Final = Ask("[What kind of {thing} was it?|What did the {thing} look like?]",
                         "It was {athing}.")  # fmt: skip
_FRIEND_NAME_ASK: Final = Ask(
    "[What was the name of the {friend}?|What was the {friend} called?]",
    "[The {friend} was called {Friend}.|{fP} name was {Friend}.]",
)
_WHEN_ASK: Final = Ask("[When did it happen?|When was that?|When did this happen?]",
                       "It happened on {day}.")  # fmt: skip
_HAPPY_ASK: Final = Ask("[How did {hq} feel at the end?|How did {hq} feel in the end?]",
                        "{ha} felt {feeling}.")  # fmt: skip
_HAPPY_END: Final = Beat(
    "[{Hero} felt {feeling} [all day long|that evening|when {s} went to sleep].|From that day on"
    " {Hero} and {Friend} were good friends, and {Hero} felt {feeling}."
    "|That night {Hero} felt {feeling}.]",
    (_HAPPY_ASK,),
)  # fmt: skip

_FOUND: Final = Plot(
    "found",
    (
        Beat("{One} {s} went to {place} [to look for|because {s} wanted] some {food}.",
             (_WHEN_ASK,
              Ask("[Where did {hq} go?|Where did {hq} walk to?]", "{ha} went to {place}."),
              Ask("Why did {hq} go there?", "{ha} wanted some {food}."))),
        Beat("{spot} {s} [found|saw|noticed] {athing}.",
             (Ask("[What did {hq} find?|What was it that {hq} found?]", "{ha} found {athing}."),
              Ask("Where did {hq} find [it|the {thing}]?", "{ha} found it {spot} {where}."),
              Ask("Where was the {thing}?", "It was {spot}."), _COLOUR_ASK)),
        Beat('["What a [nice|fine] {thing}!" said {Hero}.|"Who may have lost it?" {s} asked.'
             '|{S} picked it up and [carried|took] it along.]', core=False),
        Beat("[On the way home|A little later|Soon after that] {s} met {Friend} the {friend}, who"
             " {need}.",
             (Ask("[Who did {hq} meet?|Whom did {hq} meet?]", "{ha} met {Friend} the {friend}."),
              Ask("[What was wrong with {fq}?|What was the trouble with {fq}?]", "{fa} {need}."),
              _FRIEND_NAME_ASK)),
        Beat('["Do not worry," said {Hero}.|"I can help you," said {Hero}.|"Wait, I know what to'
             ' do!" said {Hero}.] {S} {deed}, and [soon|at once] {outcome}.',
             (Ask("[How did {hq} help {fq}?|What did {hq} do to help?]", "{ha} {deed}."),)),
        Beat('"Thank you!" said {Friend}, and {fs} gave {o} some {food}.',
             (Ask("[What did {fq} give {o}?|What did {hq} get from {fq}?]",
                  "{fa} gave {o} some {food}."),), core=False),
        _HAPPY_END,
    ),
    "{Hero} the {hero} found {athing} and helped {Friend} the {friend} with it.",
    "It is good to help others.",
    "proud",
    "worried",
    usual_things=frozenset({"lantern", "whistle", "umbrella", "mirror"}),
)  # fmt: skip

_LOST: Final = Plot(
    "lost",
    (
        Beat("{S} had {athing} that {s} loved [very much|more than anything].",
             (Ask("What did {hq} [have|love]?", "{ha} had {athing}."), _COLOUR_ASK)),
        Beat("{One} [it was gone|the {thing} was gone|{s} could not find it].",
             (_WHEN_ASK, Ask("What did {hq} lose?", "{ha} lost {p} {thing}."))),
        Beat("First {s} searched {where2}, but [it was not there|there was nothing].",
             (Ask("Where did {hq} [look|search] first?", "{ha} searched {where2} first."),),
             core=False),
        Beat("{S} [was|felt] very {worry}.",
             (Ask("How did {hq} feel [at first|when it was gone]?", "{ha} felt {worry}."),),
             core=False),
        Beat('Then {Friend} the {friend} came by [and said|and told {o}], "I saw [it|your {thing}|'
             'the {thing}] {where}!"',
             (Ask("[Who helped {o}?|Who helped {o} to find it?]",
                  "{Friend} the {friend} helped {o}."), _FRIEND_NAME_ASK)),
        Beat("They [ran|went|walked] to {place} together, and there it was, {spot}.",
             (Ask("Where was the {thing}?", "It was {spot} {where}."),
              Ask("Where did they go?", "They went to {place}."))),
        Beat('["Thank you, {Friend}!" said {Hero}.|{Hero} hugged {Friend} and [laughed|danced].|To'
             " thank {fo}, {Hero} gave {Friend} some {ffood}.]", core=False),
        _HAPPY_END,
    ),
    "{Hero} the {hero} lost {p} {thing}, and {Friend} the {friend} helped {o} to find it.",
    "A friend can help you to find what you have lost.",
    "happy",
    "sad",
    usual_things=frozenset({"key", "kite", "scarf"}),
)  # fmt: skip

_GIFT: Final = Plot(
    "gift",
    (
        Beat("{One} it was the birthday of {Friend} the {friend}.",
             (Ask("Whose birthday was it?", "It was the birthday of {Friend} the {friend}."),
              _WHEN_ASK, _FRIEND_NAME_ASK)),
        Beat("{Hero} wanted to give {fo} {athing}, [so {s} wrapped it in leaves|so {s} put a ribbon"
             " on it] and went to {place}.",
             (Ask("[What was the present?|What did {hq} give {fq}?|What was the gift?]",
                  "It was {athing}."),
              Ask("Where did {hq} go?", "{ha} went to {place}."),
              Ask("Where was the party?", "The party was {where}."))),
        Beat("On the way {weather}, but {s} [went on|did not turn back|walked on].",
             (Ask("What was the weather like?", "On the way {weather}."),), core=False),
        Beat('["A {thing}!" [cried|said] {Friend}.|When {Friend} saw the {thing}, {fs} [jumped for'
             " joy|laughed].] ["
             '"That is just what I wanted!"|"You are a true friend!"|"How kind you are!"]'),
        Beat("Then they [ate|shared] some {ffood} and [danced|sang songs] until [night|the moon"
             " came up].",
             (Ask("What did they eat?", "They ate some {ffood}."),), core=False),
        _HAPPY_END,
    ),
    "{Hero} the {hero} gave {Friend} the {friend} {athing} for {fp} birthday.",
    "To give makes you as glad as to get.",
    "glad",
    "nervous",
    leaves_home=True,
    usual_things=frozenset({"blanket", "teapot", "candle", "book"}),
)  # fmt: skip

_JOURNEY: Final = Plot(
    "journey",
    (
        Beat("{S} had always wanted to see {place}.",
             (Ask("[Where did {hq} want to go?|What did {hq} want to see?]",
                  "{ha} wanted to see {place}."),)),
        Beat("{One} {s} packed some {food} and {athing} and set out.",
             (_WHEN_ASK, Ask("What did {hq} take along?", "{ha} took some {food} and {athing}."),
              _COLOUR_ASK)),
        Beat("After a while {s} {need}.",
             (Ask("What happened on the way?", "{ha} {need}."),)),
        Beat("[Luckily {s} had the {thing}.|But {s} did not give up.|But {Hero} was clever.] {S}"
             " {deed}, and soon {outcome}.",
             (Ask("[What did {hq} do then?|What did {hq} do with the {thing}?]",
                  "{ha} {deed}."),)),
        Beat("[At last|In the end] {s} [came to|reached] {place}. It was {look}.",
             (Ask("[What was {place} like?|What did {hq} see there?]", "It was {look}."),)),
        Beat("There {s} met {Friend} the {friend}, and they [watched the stars|sat in the sun|told"
             " each other stories] together.",
             (Ask("Who did {hq} meet there?", "{ha} met {Friend} the {friend}."),
              _FRIEND_NAME_ASK)),
        _HAPPY_END,
    ),
    "{Hero} the {hero} went to see {place} and took {athing} along.",
    "If you do not give up, you will get there.",
    "proud",
    "worried",
    frozenset({"lantern", "map", "umbrella", "blanket", "whistle", "rope", "compass", "candle",
               "shell", "scarf", "flute", "net", "boat", "key", "mirror", "book"}),
    leaves_home=True,
    usual_things=frozenset({"map", "boat", "compass", "rope"}),
)  # fmt: skip

_TRADE: Final = Plot(
    "trade",
    (
        Beat("{One} {s} met {Friend} the {friend} {where}.",
             (Ask("Where did they meet?", "They met {where}."), _WHEN_ASK,
              Ask("Who did {hq} meet?", "{ha} met {Friend} the {friend}."))),
        Beat("{Friend} had {athing}.",
             (Ask("What did {fq} have?", "{fa} had {athing}."), _COLOUR_ASK, _FRIEND_NAME_ASK)),
        Beat('"I [would like to have|need] a {thing} {purpose}," said {Hero}.',
             (Ask("Why did {hq} want [it|the {thing}]?", "{ha} wanted it {purpose}."),)),
        Beat('"What will you give me for it?" asked {Friend}.', core=False),
        Beat('["I will bring you some {ffood}," said {Hero}.|{Hero} thought of some {ffood}.] {S}'
             " [ran off|went away] and [soon|quickly] came back with"
             " plenty.",
             (Ask("What did {hq} bring?", "{ha} brought some {ffood}."),
              Ask("[What did {hq} give for it?|What did {hq} give for the {thing}?]",
                  "{ha} gave {fq} some {ffood}."))),
        Beat("So {Friend} got the {ffood}, and {Hero} got the {thing}.",
             (Ask("[What did {hq} get?|What did {hq} get in the end?]", "{ha} got the {thing}."),)),
        _HAPPY_END,
    ),
    "{Hero} the {hero} swapped some {ffood} for {athing}.",
    "A fair swap makes both sides glad.",
    "merry",
    "worried",
    usual_things=frozenset({"pencil", "net", "ladder"}),
)  # fmt: skip

_REPAIR: Final = Plot(
    "repair",
    (
        Beat("{One} {p} {thing} [broke|fell down and broke].",
             (_WHEN_ASK,
              Ask("[What broke?|What was broken?]", "The {thing} of {Hero} was broken."))),
        Beat("{S} [was|felt] very {worry}.",
             (Ask("How did {hq} feel at first?", "{ha} felt {worry}."),), core=False),
        Beat("[{S} carried it to {place}|So {s} went to {place}], where {Friend} the {friend}"
             " [could mend things|had a little workshop].",
             (Ask("Where did {hq} go?", "{ha} went to {place}."),
              Ask("Who could mend [it|the {thing}]?", "{Friend} the {friend} could mend it."),
              _FRIEND_NAME_ASK)),
        Beat('["Let me see," said {Friend}.|"That is easy," said {Friend}.] {fS} took {fix} and'
             " mended the {thing}.",
             (Ask("How did {fq} mend [it|the {thing}]?", "{fa} took {fix}."),
              Ask("Who mended [it|the {thing}]?", "{Friend} the {friend} mended it."))),
        Beat("To thank {fo}, {Hero} gave {Friend} some {ffood}.",
             (Ask("What did {hq} give {fq}?", "{ha} gave {fq} some {ffood}."),), core=False),
        _HAPPY_END,
    ),
    "{Friend} the {friend} mended the {thing} of {Hero} the {hero}.",
    "What is broken can often be mended.",
    "thankful",
    "sad",
    leaves_home=True,
    usual_things=frozenset({"broom", "basket"}),
)  # fmt: skip

_NOISE: Final = Plot(
    "noise",
    (
        Beat("One {season} night {s} heard {sound} from {place}.",
             (Ask("What did {hq} hear?", "{ha} heard {sound}."),
              Ask("Where did the sound come from?", "It came from {place}."),
              Ask("When did it happen?", "It happened on {aseason} night."))),
        Beat("{S} [was|felt] a little {worry}, but {s} wanted to know what it was.",
             (Ask("How did {hq} feel at first?", "{ha} felt {worry}."),)),
        Beat("{S} [crept|tiptoed|came] closer and looked {spot}.",
             (Ask("Where did {hq} look?", "{ha} looked {spot}."),), core=False),
        Beat("It was only {Friend} the {friend} with {athing}!",
             (Ask("Who [was it|made the sound]?", "It was {Friend} the {friend}."),
              Ask("What did {fq} have?", "{fa} had {athing}."), _COLOUR_ASK, _FRIEND_NAME_ASK)),
        Beat('"I [could not sleep|was bored]," said {Friend}. [They laughed and played until the'
             " morning|So they sat down and talked until the morning].",
             (Ask("How long did they stay?", "They stayed until the morning."),)),
        _HAPPY_END,
    ),
    "{Hero} the {hero} heard {sound}, but it was only {Friend} the {friend} with {athing}.",
    "Many things are less scary when you look closer.",
    "calm",
    "afraid",
    leaves_home=True,
    usual_things=frozenset({"drum", "bell", "flute"}),
)  # fmt: skip

_QUARREL: Final = Plot(
    "quarrel",
    (
        Beat("{One} {Hero} and {Friend} the {friend} found {athing} {spot} {where}.",
             (Ask("What did they find?", "They found {athing}."), _WHEN_ASK, _FRIEND_NAME_ASK,
              Ask("Where [did they find it|was the {thing}]?", "It was {spot} {where}."),
              _COLOUR_ASK)),
        Beat('"It is mine!" said {Hero}. "No, it is mine!" said {Friend}.',
             (Ask("Why did they quarrel?", "They both wanted the {thing}."),)),
        Beat("They pulled and shouted until [they were tired|both of them sat down].", core=False),
        Beat('Then {Hero} [said|had an idea], "[Let us share it|We can share it]."',
             (Ask("Who had the idea to share?", "{Hero} the {hero} had the idea."),)),
        Beat("So {Hero} had the {thing} by day, and {Friend} had it by night.",
             (Ask("[How did they share it?|What did they do in the end?]",
                  "{Hero} had it by day, and {Friend} had it by night."),
              Ask("When did {fq} have it?", "{fa} had it by night."))),
        _HAPPY_END,
    ),
    "{Hero} the {hero} and {Friend} the {friend} both wanted {athing}, so they shared it.",
    "It is better to share than to quarrel.",
    "calm",
    "worried",
    usual_things=frozenset({"shell", "spoon"}),
)  # fmt: skip

_RACE: Final = Plot(
    "race",
    (
        Beat("{One} {s} ran a race to {place} with {Friend} the {friend}.",
             (Ask("Where did they run?", "They ran to {place}."), _WHEN_ASK, _FRIEND_NAME_ASK,
              Ask("Who ran with {o}?", "{Friend} the {friend} ran with {o}."))),
        Beat("The prize was {athing}.",
             (Ask("What was the prize?", "The prize was {athing}."), _COLOUR_ASK)),
        Beat("{weather2}, and {Hero} was [much|a little] faster.",
             (Ask("Who was faster?", "{Hero} was faster."),), core=False),
        Beat("But then {Friend} fell into {trap}.",
             (Ask("What happened to {fq}?", "{fa} fell into {trap}."),)),
        Beat("{Hero} [stopped|turned back] and [helped {fo} out|pulled {fo} out].",
             (Ask("What did {hq} do then?", "{ha} helped {fq} out."),)),
        Beat("They [came to {place}|reached {place}] side by side and [shared the {thing}|got the"
             " {thing} together].",
             (Ask("Who won [the race|the prize]?", "They won it together."),)),
        _HAPPY_END,
    ),
    "{Hero} the {hero} helped {Friend} the {friend} in a race, and they won {athing} together.",
    "A friend is worth more than a prize.",
    "happy",
    "worried",
    leaves_home=True,
    usual_things=frozenset({"hammer"}),
)  # fmt: skip

PLOTS: Final = (_FOUND, _LOST, _GIFT, _JOURNEY, _TRADE, _REPAIR, _NOISE, _QUARREL, _RACE)
