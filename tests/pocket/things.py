"""The things of the pocket world: what they are called, and which picture of the emoji set shows them."""

# word:code point. Every word is one token of CLIP's vocabulary.
_KNOWN = """
dog:1f436 cat:1f431 mouse:1f42d rabbit:1f430 fox:1f98a bear:1f43b panda:1f43c koala:1f428 tiger:1f42f cow:1f42e
pig:1f437 frog:1f438 monkey:1f435 chicken:1f414 penguin:1f427 duck:1f986 wolf:1f43a horse:1f434 unicorn:1f984
bee:1f41d butterfly:1f98b snail:1f40c octopus:1f419 fish:1f41f dolphin:1f42c whale:1f433 shark:1f988 crab:1f980
elephant:1f418 giraffe:1f992 zebra:1f993 sheep:1f411 dragon:1f409 ladybug:1f41e parrot:1f99c flamingo:1f9a9
squirrel:1f43f-fe0f apple:1f34e banana:1f34c grapes:1f347 lemon:1f34b watermelon:1f349 strawberry:1f353
cherry:1f352 pineapple:1f34d pear:1f350 avocado:1f951 tomato:1f345 carrot:1f955 corn:1f33d broccoli:1f966
mushroom:1f344 bread:1f35e croissant:1f950 cheese:1f9c0 egg:1f95a pizza:1f355 burger:1f354 fries:1f35f donut:1f369
cookie:1f36a cake:1f382 lollipop:1f36d coffee:2615 car:1f697 taxi:1f695 bus:1f68c ambulance:1f691 train:1f686
bicycle:1f6b2 rocket:1f680 airplane:2708-fe0f boat:26f5 anchor:2693 robot:1f916 crown:1f451 shoe:1f45f shirt:1f455
dress:1f457 umbrella:2602-fe0f trumpet:1f3ba drum:1f941 camera:1f4f7 phone:1f4f1 clock:23f0 key:1f511 hammer:1f528
book:1f4d5 balloon:1f388 gift:1f381 candle:1f56f-fe0f bell:1f514 football:26bd basketball:1f3c0 trophy:1f3c6
diamond:1f48e heart:2764-fe0f star:2b50 moon:1f319 sun:1f31e cloud:2601-fe0f snowman:26c4 tree:1f333
sunflower:1f33b tulip:1f337 house:1f3e0 tent:26fa ghost:1f47b pumpkin:1f383 alien:1f47d skull:1f480
backpack:1f392 magnet:1f9f2
"""
# Never shown to the text encoder and the UNet: the subjects that references and concepts must bring in.
_HELD_OUT = """
lion:1f981 owl:1f989 turtle:1f422 hedgehog:1f994 taco:1f32e cupcake:1f9c1 tractor:1f69c helicopter:1f681 hat:1f3a9
guitar:1f3b8 cactus:1f335 castle:1f3f0 teddy:1f9f8 boot:1f97e
"""
# held out:the known thing that is most like it; the word that a user would write for it
_KIN = """
lion:tiger owl:parrot turtle:frog hedgehog:squirrel taco:burger cupcake:cake tractor:car helicopter:airplane hat:crown
guitar:trumpet cactus:tree castle:house teddy:bear boot:shoe
"""
KNOWN, HELD_OUT, KIN = (dict(entry.split(":") for entry in text.split()) for text in (_KNOWN, _HELD_OUT, _KIN))
THINGS = KNOWN | HELD_OUT
WORDS = tuple(THINGS)

COLOURS = {
    "red": (0.84, 0.16, 0.16),
    "orange": (0.97, 0.56, 0.12),
    "yellow": (0.98, 0.88, 0.25),
    "green": (0.22, 0.66, 0.28),
    "blue": (0.16, 0.36, 0.86),
    "purple": (0.50, 0.22, 0.70),
    "pink": (0.98, 0.62, 0.78),
    "brown": (0.45, 0.28, 0.15),
    "black": (0.06, 0.06, 0.07),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.52, 0.52, 0.54),
    "teal": (0.20, 0.72, 0.72),
}
