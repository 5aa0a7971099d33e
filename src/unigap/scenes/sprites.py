"""The sandbox's pixel art: 32 objects of 8x8 pixels, and the layers of a portrait.

One character is one pixel. The top and the bottom half of every object differ clearly from every other half, since
models draw in patches of 8x4 pixels and the reader must notice a patch of another object (tests hold the distance).
"""

from typing import Final

Colour = tuple[int, int, int]

PALETTE: Final[dict[str, Colour]] = {
    ".": (255, 255, 255),
    "k": (25, 25, 30),
    "g": (125, 130, 140),
    "s": (195, 200, 210),
    "n": (115, 65, 30),
    "t": (220, 165, 105),
    "r": (220, 35, 40),
    "d": (135, 15, 35),
    "o": (245, 135, 20),
    "y": (250, 210, 35),
    "l": (130, 205, 60),
    "G": (25, 125, 50),
    "T": (0, 150, 150),
    "b": (40, 85, 215),
    "c": (115, 190, 245),
    "v": (115, 50, 165),
    "u": (185, 130, 225),
    "p": (250, 130, 175),
}
"""Pixel character -> RGB; "." is the white ground."""

SPRITES: Final[dict[str, str]] = {
    "apple": """
        ....n.ll
        ....nll.
        .rrrnrr.
        rrprrrrr
        rprrrrrr
        rrrrrrrr
        .rrrrrr.
        ..rr.rr.
    """,
    "banana": """
        ......nn
        .....yyy
        .....yyy
        ....yyyy
        n..yyyyy
        nyyyyyy.
        yyyyyyy.
        .yyyyy..
    """,
    "orange": """
        ...nGG..
        ..oooo..
        .oyyooo.
        ooyooooo
        oooooooo
        oooooooo
        .oooooo.
        ..oooo..
    """,
    "strawberry": """
        .G.GG.G.
        ..GGGG..
        .rrrrrr.
        rryrryrr
        rrrrrrrr
        .ryrryr.
        ..rrrr..
        ...rr...
    """,
    "grape": """
        ...nGG..
        ...nGGG.
        .uvuvuv.
        vvvvvvvv
        .uvuvuv.
        .vvvvvv.
        ..uvuv..
        ...vv...
    """,
    "rose": """
        ..drrd..
        .drddrd.
        .rdrrdr.
        .drrrrd.
        ..dddd..
        ...G.GG.
        .GGGGG..
        ...G....
    """,
    "tulip": """
        p..pp..p
        pp.pp.pp
        pppppppp
        .pppppp.
        ...GG...
        G..GG..G
        GG.GG.GG
        .GGGGGG.
    """,
    "daisy": """
        .c.cc.c.
        cccccccc
        .ccyycc.
        ccyyyycc
        ccyyyycc
        .ccyycc.
        cccccccc
        .c.cc.c.
    """,
    "sunflower": """
        .y.yy.y.
        yyyyyyyy
        .ynnnny.
        yynnnnyy
        .ynnnny.
        yyyyyyyy
        .y.GG.y.
        .GGGG...
    """,
    "cup": """
        ..g..g..
        .g..g...
        TTTTTT..
        TTTTTTTT
        TTTTTT.T
        TTTTTT.T
        TTTTTTT.
        .TTTT...
    """,
    "book": """
        ddddddd.
        dyyyyyds
        ddddddds
        dyyydddd
        ddddddds
        ddddddds
        dsssssss
        dddddddd
    """,
    "cat": """
        g......g
        gg....gg
        gggggggg
        glkgglkg
        gggggggg
        sssppsss
        .gskksg.
        ..gggg..
    """,
    "dog": """
        .tttttt.
        nttttttn
        nktttktn
        nnttttnn
        nntkktnn
        n.tttt.n
        ..trrt..
        ...rr...
    """,
    "spoon": """
        ..nttn..
        .nttttn.
        .nttttn.
        .nttttn.
        ..nttn..
        ...tn...
        ...tn...
        ..ttnn..
    """,
    "fork": """
        g.g..g.g
        g.g..g.g
        g.g..g.g
        gggggggg
        .gggggg.
        ...kk...
        ...kk...
        ...kk...
    """,
    "notebook": """
        kyyyyyyy
        gy.....y
        ky.bbb.y
        gy.....y
        kyyyyyyy
        gyyyyyyy
        kybbbbby
        gyyyyyyy
    """,
    "pen": """
        ......bb
        .....bbb
        ....bbb.
        ...bbb..
        ..bbb...
        .kbb....
        .kk.....
        k.......
    """,
    "lamp": """
        ...ll...
        ..llll..
        .llllll.
        llllllll
        ..yyyy..
        ...kk...
        ...kk...
        .kkkkkk.
    """,
    "chair": """
        nn......
        nn......
        nn......
        nn......
        nrrrrrr.
        nnnnnnnn
        nn....nn
        nn....nn
    """,
    "clock": """
        ..bbbb..
        .b....b.
        b...k..b
        b...k..b
        b...kk.b
        b......b
        .b....b.
        ..bbbb..
    """,
    "table": """
        ........
        nnnnnnnn
        tttttttt
        .n....n.
        .n....n.
        .n....n.
        .n....n.
        .n....n.
    """,
    "pencil": """
        ..pppp..
        ..ssss..
        ..yyoo..
        ..yyoo..
        ..yyoo..
        ..yyoo..
        ..tttt..
        ...kk...
    """,
    "car": """
        ........
        ..rrrr..
        .rccrcr.
        rrrrrrrr
        rrrrrrry
        rrrrrrrr
        .kk..kk.
        .kk..kk.
    """,
    "bicycle": """
        .nn..kk.
        ..G..k..
        ..GGGG..
        .GG.G.G.
        kkkGGkkk
        ksk..ksk
        kkk..kkk
        ........
    """,
    "plate": """
        ..cccc..
        .cc..cc.
        cc.ss.cc
        c.ssss.c
        c.ssss.c
        cc.ss.cc
        .cc..cc.
        ..cccc..
    """,
    "laptop": """
        .gggggg.
        .gccccg.
        .gccccg.
        .gccccg.
        .gggggg.
        sksksksk
        ssssssss
        ........
    """,
    "phone": """
        .k......
        .kkkkkk.
        .kllllk.
        .kllllk.
        .kkkkkk.
        .kskssk.
        .kkkkkk.
        .kskssk.
    """,
    "hat": """
        ..kkkk..
        ..kkkk..
        ..kkkk..
        ..kkkk..
        ..rrrr..
        ..rrrr..
        kkkkkkkk
        .kkkkkk.
    """,
    "umbrella": """
        ...vv...
        .vvuuvv.
        vvuuuuvv
        vvuuuuvv
        v.vkkv.v
        ...k....
        ...k..k.
        ...kkkk.
    """,
    "ball": """
        ..rryy..
        .rrryyy.
        rrrryyyy
        rrrryyyy
        bbbbllll
        bbbbllll
        .bbblll.
        ..bbll..
    """,
    "shirt": """
        .bb..bb.
        bbbbbbbb
        bbbbbbbb
        b.bbbb.b
        ..bbbb..
        ..bbbb..
        ..bbbb..
        ..bbbb..
    """,
    "guitar": """
        ..knnk..
        ..knnk..
        ...nn...
        ...nn...
        .oonnoo.
        ..okko..
        oookkooo
        .oonnoo.
    """,
}

# Portraits. Each layer is the left half of a picture, 12 characters a row, mirrored when drawn; "_" lets the layer
# below through. H is hair, S skin, s wrinkled skin; the rest is in PORTRAIT_PALETTE. The face stays inside the middle 8
# columns and each feature inside one row of patches, so that hardly a patch depends on more than two attributes.

HAIR_COLOURS: Final[dict[str, Colour]] = {
    "black": (10, 10, 20),
    "brown": (140, 80, 30),
    "blond": (250, 205, 50),
    "red": (255, 100, 15),
}
SKIN_COLOURS: Final[dict[str, Colour]] = {
    "light": (255, 220, 190),
    "tan": (205, 145, 95),
    "dark": (80, 45, 35),
}
WRINKLE_COLOURS: Final[dict[str, Colour]] = {
    "light": (185, 130, 100),
    "tan": (115, 60, 25),
    "dark": (185, 135, 110),
}
PORTRAIT_PALETTE: Final[dict[str, Colour]] = {
    ".": (185, 220, 225),
    "w": (255, 255, 255),
    "k": (25, 25, 30),
    "c": (150, 205, 250),
    "m": (185, 30, 55),
    "p": (255, 80, 125),
    "F": (175, 40, 140),
    "M": (30, 80, 150),
}
"""Pixel character -> RGB of a portrait; "." is its backdrop, which no grid of objects has."""

FEMALE_HEAD: Final = """
    ......HHHHHH
    .....HHHHHHH
    ....HHHHHHHH
    ....HHHHHHHH
    ...HHHHHHHHH
    ...HHHHHHHHH
    ...HHHHHHSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHHSSSS
    ...HHHHH.SSS
    ...HHHHH..SS
    ...HHHHHFFSS
    ..FFHHHFFFFF
    .FFFFFFFFFFF
    .FFFFFFFFFFF
    FFFFFFFFFFFF
    FFFFFFFFFFFF
"""
MALE_HEAD: Final = """
    ......HHHHHH
    .....HHHHHHH
    ....HHHHHHHH
    ....HHHHHHHH
    .....HHHHHHH
    .....HHHHHHH
    .....HHHHSSS
    .....HHHSSSS
    .....HHHSSSS
    .....HHHSSSS
    .....HHHSSSS
    .....HHHSSSS
    ........SSSS
    ........SSSS
    ........SSSS
    ........SSSS
    .........SSS
    ..........SS
    ...MMMMMMMSS
    ..MMMMMMMMMM
    .MMMMMMMMMMM
    .MMMMMMMMMMM
    MMMMMMMMMMMM
    MMMMMMMMMMMM
"""
GIRL_HEAD: Final = """
    ............
    ............
    ............
    ............
    ............
    .........HHH
    ........HHHH
    ........HHHH
    .HH..HHHHHHH
    HHHH.HHHHHSS
    HHHHHHH.SSSS
    HHHH....SSSS
    HHHH....SSSS
    HHHH....SSSS
    HHHH....SSSS
    .HH.....SSSS
    .........SSS
    ..........SS
    ...FFFFFFFSS
    ..FFFFFFFFFF
    ..FF.FFFFFFF
    ..FF.FFFFFFF
    ..FF.FFFFFFF
    ..FF.FFFFFFF
"""
BOY_HEAD: Final = """
    ............
    ............
    ............
    ............
    ............
    .........HHH
    ........HHHH
    ........HHHH
    ........HHHH
    ........HHSS
    ........SSSS
    ........SSSS
    ........SSSS
    ........SSSS
    ........SSSS
    ........SSSS
    .........SSS
    ..........SS
    ...MMMMMMMSS
    ..MMMMMMMMMM
    ..MM.MMMMMMM
    ..MM.MMMMMMM
    ..MM.MMMMMMM
    ..MM.MMMMMMM
"""
HEADS: Final[dict[tuple[str, bool], str]] = {
    ("female", False): FEMALE_HEAD,
    ("male", False): MALE_HEAD,
    ("female", True): GIRL_HEAD,
    ("male", True): BOY_HEAD,
}
"""(gender, is a kid) -> the layer of head and shoulders."""

FEATURES: Final[dict[str, tuple[int, str]]] = {
    "kid": (
        10,
        """
        _wk_
        _wk_
        pp__
        pp__
        __m_
        ___m
        """,
    ),
    "middle-aged": (
        8,
        """
        _kk_
        ____
        _wk_
        ____
        ____
        ____
        __mm
        """,
    ),
    "old": (
        8,
        """
        www_
        _kk_
        kcck
        _kk_
        _ss_
        s___
        s_mm
        ____
        """,
    ),
}
"""Age -> first row, and the left half of the face over the middle 8 columns."""
