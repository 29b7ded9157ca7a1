"""Files that are written anew in place."""

from holdfast.crypto import (
    PREAMBLE_BYTES,
    FileKind,
    KeyRing,
    KeySource,
    Preamble,
    SealedEnv,
    WholeFileSealing,
)
from holdfast.env import SimEnv

SOURCE = KeySource(bytes(32))


def test_each_writing_has_a_key_of_its_own_that_of_the_epoch_in_force():
    env = SimEnv()
    env.make_dir("/db", site="test")
    ring = KeyRing.create(env, "/db", SOURCE)
    sealed = SealedEnv(env, ring, {"LIVE": WholeFileSealing()})
    file = sealed.create("/db/LIVE", site="test")
    fronts = []
    for number in range(3):
        if number == 2:
            ring.replace(*ring.protect(SOURCE))
        file.write_at(0, b"figures %d" % number, site="test")
        stored = env.open("/db/LIVE").read_at(0, PREAMBLE_BYTES)
        fronts.append(Preamble.decode(stored, FileKind.FIGURES, "LIVE", 0))
        assert sealed.open("/db/LIVE").read_at(0, 100) == b"figures %d" % number
    assert len({front.seal_id for front in fronts}) == 3
    assert [front.epoch for front in fronts] == [1, 1, 2]
