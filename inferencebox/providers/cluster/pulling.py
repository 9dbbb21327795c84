"""Whether the nodes of a cluster can have an image. They pull by themselves, and what they reach is not ours to see."""

from inferencebox.programs.registry import why_not
from inferencebox.providers.cluster.survey import Nodes
from inferencebox.release import Release


def obstacle(nodes: Nodes, release: Release, name: str) -> str | None:
    """Why an image of this name can't be counted on; none if every node has it, or its registry gives it to us."""
    if lack := release.lack_of_image(name):
        return lack
    pin = release.images[name]
    if nodes.images is not None and pin.reference in nodes.images:
        return None
    why = why_not(pin.reference, pin.digest)
    return f"not every node is known to have {pin.reference}, and only a registry has it: {why}" if why else None
