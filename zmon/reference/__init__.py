"""Reference profiles: what a model's rows looked like when it was sound, against which drift is measured.

`profile` makes one of arrays; `Profile.save` and `Profile.load` are its file; `text` shows it to people;
`from_batches` makes one of more rows than fit into memory. Light: numpy and msgpack only.
"""

from zmon.reference.arrays import Reader, profile
from zmon.reference.build import Counting, from_batches
from zmon.reference.calibration import Knots
from zmon.reference.document import Categorical, Numeric, Own, Profile
from zmon.reference.show import text
from zmon.reference.sketch import Sketch

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
