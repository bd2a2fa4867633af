"""Reference profiles: the distributions of a model's rows while it was sound, against which drift is measured.

`profile` makes one from arrays; `Profile.save` and `Profile.load` are its file; `text` shows it to people;
`from_batches` makes one from more rows than fit into memory. Light: numpy and msgpack only.
"""

from zmon.reference.arrays import Reader, profile
from zmon.reference.build import Counting, from_batches
from zmon.reference.calibration import Knots
from zmon.reference.document import Profile
from zmon.reference.show import text
from zmon.reference.sketch import Sketch
from zmon.reference.tables import Categorical, Numeric, Own

__all__ = [
    "Categorical",
    "Counting",
    "Knots",
    "Numeric",
    "Own",
    "Profile",
    "Reader",
    "Sketch",
    "from_batches",
    "profile",
    "text",
]
