"""`sfumato scene`."""

SCENE = """
width = 64
height = 64
steps = 1
seed = 3
harmonise = 0
[background]
prompt = "a table"
[[elements]]
name = "apple"
prompt = "a red apple"
box = [0, 0, 0.4, 1]
"""


def test_a_scene_is_drawn_its_layers_kept_and_the_picture_replayed(here, tmp_path):
    (tmp_path / "kitchen.toml").write_text(SCENE)
    line = ("scene", "kitchen.toml", "-o", "kitchen.png", "--layers", "layers")
    assert here(*line)[:2] == (0, "kitchen.png\n")
    assert sorted(path.name for path in (tmp_path / "layers").iterdir()) == ["apple.png", "background.png"]
    first = (tmp_path / "kitchen.png").read_bytes()
    assert here(*line)[:2] == (0, "kitchen.png\n")
    assert (tmp_path / "kitchen.png").read_bytes() == first
    assert here("replay", "kitchen.png")[:2] == (0, "identical: kitchen.png\n")
    assert here("replay", "layers/apple.png")[:2] == (0, "identical: layers/apple.png\n")


def test_what_is_wrong_in_the_file_is_told_before_anything_is_drawn(here, tmp_path):
    (tmp_path / "kitchen.toml").write_text(SCENE.replace("0.4", "4"))
    status, out, err = here("scene", "kitchen.toml", "-o", "kitchen.png")
    assert (status, out) == (2, "")
    assert err == "error: kitchen.toml: element 1 ('apple'): box.2 is 4: must be at most 1\n"
    status, _, err = here("scene", "none.toml")
    assert (status, err) == (2, "error: cannot read the scene none.toml: No such file or directory\n")
