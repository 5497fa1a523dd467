"""What tests of several trainings begin with."""

import pytest
from made_up import blobs, random_networks, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the pocket model's three files, of random weights, and blobs in place of the emoji."""
    return blobs(write(random_networks(), tmp_path_factory.mktemp("pocket")))
