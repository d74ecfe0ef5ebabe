"""Names that become paths."""

import pytest

from mets_ray.storage import name_fault, path_fault

CLIMBING = [
    "", "..", "../x", "../../../x", "a/../../x", "a/..", "/etc/passwd", "//host/share", "..\\x", "a\\b", "C:\\x", "c:x",
    "a\x00b", "a\nb", "a\x7f", "a\x85", "s3://bucket/x", "file:///x", "a::file:///x", ".. /x", "a/.../b", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", CLIMBING)
def test_what_leaves_its_folder_is_refused(path):
    assert path_fault(path)
    assert name_fault(path)


@pytest.mark.parametrize(
    "path", ["records100/00000/00001_lr", "./a/b", "a//b", "a..b/c", "1.2", "a b", "Größe/é", "r#cut:start=0&samples=5"]
)
def test_paths_below_the_folder_are_fine(path):
    assert path_fault(path) == ""


@pytest.mark.parametrize(
    "name", ["a/b", "a:b", "why?", "a*", "a|b", "<a>", 'a"b', ".hidden", "a.", " a", "a ", "NUL", "com1.txt", "x" * 201]
)
def test_names_that_not_every_system_can_write_are_refused(name):
    assert name_fault(name)


@pytest.mark.parametrize("name", ["ptbxl_super", "heart rhythm", "a.b-c_1", "Größe", "x" * 200, "nullable", "(a), [b]"])
def test_plain_names_are_fine(name):
    assert name_fault(name) == ""
