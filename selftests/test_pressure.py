"""Whether the machine can take more work."""

import pytest

from inferencebox.pressure import has_room

SAID = "some avg10={} avg60=99.00 avg300=99.00 total=9006912583\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.mark.parametrize(("share", "room"), [("0.00", True), ("69.99", True), ("70.00", False), ("98.12", False)])
def test_there_is_room_until_something_waits_for_a_processor_most_of_the_time(tmp_path, share, room):
    (tmp_path / "cpu").write_text(SAID.format(share))
    assert has_room(tmp_path / "cpu") == room


def test_there_is_room_where_the_kernel_does_not_say(tmp_path):
    assert has_room(tmp_path / "cpu")
