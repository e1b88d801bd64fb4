"""Each method of the laboratory's comparison a second time, under another name: with other seeds,
nothing should tell the two apart."""

from zoo import register_method
from zoo.registry import methods

CHOSEN = ("magnitude", "l0", "movement", "soft_movement", "smp_l", "smp_s", "smp_g", "smp_t")

for name in (*CHOSEN, "random"):
    known = methods[name]
    about = {"drives": known.facts.drives, "control": known.facts.control}
    own = {"recipe": name, "ranges": known.ranges, "label": f"twin of {name}"}
    register_method(f"twin_{name}", **own, **about)(known.make)
