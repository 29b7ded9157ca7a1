"""Many threads open pieces of the same files with the same ciphers, while others seal."""

import random
import threading

import holdfast
from holdfast import DatabaseSettings, KeyspaceSettings

KEY = bytes(range(32))
THREADS = 4


def test_threads_share_the_ciphers_of_files(tmp_path):
    settings = DatabaseSettings(
        memory_bytes=1 << 20,
        keyspace=KeyspaceSettings(memtable_bytes=1 << 16, page_bytes=8192),
    )
    faults = []

    def value(number):
        return b"%06d" % number + random.Random(number).randbytes(400)

    with holdfast.open(str(tmp_path / "db"), key=KEY, settings=settings) as db:
        db.ingest((b"%06d" % number, value(number)) for number in range(6000))

        def work(seed):
            chance = random.Random(seed)
            try:
                for turn in range(1500):
                    number = chance.randrange(6000)
                    if db.get(b"%06d" % number) != value(number):
                        faults.append(f"{number} has another value")
                    if turn % 3 == 0:
                        db.put(b"w%d %d" % (seed, turn), value(turn), durability="none")
            except BaseException as error:
                faults.append(repr(error))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not faults
        assert db.stats().pool_misses > 1000
        assert db.verify().ok
