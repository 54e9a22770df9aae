"""Stacks in, costs and a picture out."""

import xml.etree.ElementTree as ET

from weir.flame import draw_flame_graph, largest_costs, parse_stacks

ENGINE = "main (core.py);step (core.py);mm <torch> 60\nmain (core.py);step (core.py) 10\n"
FRONT = "run (loop.py);send (ws.py) 20\nrun (loop.py);read (ws.py) 9\nrun (loop.py) 1\n"
BOTH = {"engine": ENGINE, "front end": FRONT}


def test_lines_that_are_no_stacks_are_left_out() -> None:
    assert parse_stacks("a;b 3\nno count\n\na;b 2\n") == {("a", "b"): 5}


def test_the_three_largest_are_those_that_ran_themselves() -> None:
    costs = [(c.process, c.function, c.share) for c in largest_costs(BOTH)]
    assert costs == [
        ("engine", "mm <torch>", 0.6),
        ("front end", "send (ws.py)", 0.2),
        ("engine", "step (core.py)", 0.1),
    ]
    assert largest_costs({"engine": ""}) == []


def test_the_picture_is_xml_and_boxes_are_as_wide_as_their_share() -> None:
    root = ET.fromstring(draw_flame_graph(BOTH, "r1 & r2"))
    tag = "{http://www.w3.org/2000/svg}"
    widths = {}
    for group in root.iter(f"{tag}g"):
        name = str(group.findtext(f"{tag}title")).partition(": ")[0]
        box = group.find(f"{tag}rect")
        assert box is not None
        widths[name] = float(box.attrib["width"])
    assert widths["engine"] == 840
    assert widths["mm <torch>"] == 720
    assert widths["send (ws.py)"] == 240
    ET.fromstring(draw_flame_graph({}, "nothing"))
