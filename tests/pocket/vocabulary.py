"""The words that captions of the pocket world are made of, with their numbers in CLIP's vocabulary."""

import torch

START, END, LENGTH = 49406, 49407, 77
_CLIP_IDS = """
,=267 a=320 an=550 on=525 at=536 in=530 the=518 left=1823 right=1155 top=1253 bottom=5931 and=537
background=5994 small=2442 big=1205 red=736 orange=4287 yellow=4481 green=1901 blue=1746 purple=5496
pink=3360 brown=2866 black=1449 white=1579 gray=7048 teal=22821 dog=1929 cat=2368 mouse=9301 rabbit=10274
fox=3240 bear=4298 panda=12952 koala=36654 tiger=6531 cow=9706 pig=9619 frog=11438 monkey=9465 chicken=3717
penguin=14952 duck=6910 wolf=5916 horse=4558 unicorn=15660 bee=5028 butterfly=9738 snail=23132 octopus=22327
fish=2759 dolphin=16464 whale=11650 shark=7980 crab=11574 elephant=10299 giraffe=22826 zebra=22548
sheep=9629 dragon=5471 ladybug=40038 parrot=23565 flamingo=30323 squirrel=14004 apple=3055 banana=8922
grapes=18580 lemon=7184 watermelon=19889 strawberry=10233 cherry=7325 pineapple=14831 pear=18820
avocado=14135 tomato=9867 carrot=15435 corn=5894 broccoli=19094 mushroom=13011 bread=5066 croissant=46011
cheese=4108 egg=5911 pizza=4474 burger=6548 fries=11369 donut=18471 cookie=9367 cake=2972 lollipop=34605
coffee=2453 car=1615 taxi=11380 bus=2840 ambulance=15555 train=3231 bicycle=11652 rocket=8383 airplane=16451
boat=4440 anchor=13201 robot=8797 crown=6902 shoe=7342 shirt=2523 dress=2595 umbrella=17143 trumpet=23681
drum=8698 camera=3934 phone=1951 clock=6716 key=1458 hammer=9401 book=1116 balloon=13634 gift=2733
candle=12674 bell=3718 football=1882 basketball=3835 trophy=6502 diamond=6235 heart=1936 star=1565 moon=3293
sun=2176 cloud=3887 snowman=22668 tree=2677 sunflower=21559 tulip=28389 house=1212 tent=10782 ghost=7108
pumpkin=8842 alien=9639 skull=12092 backpack=14894 magnet=18240
"""
CLIP_IDS = {word: int(number) for word, number in (entry.split("=") for entry in _CLIP_IDS.split())}
# rows of the text encoder while it learns: the ends, any word that it does not know, then the words
ROWS = {"<start>": START, "<end>": END, "<unknown>": -1, **CLIP_IDS}
UNKNOWN = 2
_ROW_OF = {word: row for row, word in enumerate(ROWS)}


def rows_of(text, before=0, after=0):
    """Rows (77,) of a caption, as the host's tokenizer lays it out, with so many unknown words at its ends."""
    words = text.replace(",", " ,").split()
    rows = [UNKNOWN] * before + [_ROW_OF.get(word, UNKNOWN) for word in words] + [UNKNOWN] * after
    return torch.tensor([0, *rows, *[1] * (LENGTH - 1 - len(rows))])
