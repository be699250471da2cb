"""Writes checkpoints with TensorFlow's own Saver: `python make_tensorflow.py`, with the package tensorflow-cpu 2.

`tiny.ckpt-7` is one shard; `many.ckpt-3` has two shards and an index of several blocks. `test_tensorflow_checkpoint.py`
holds the same values.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
tf1.disable_eager_execution()
HERE = Path(__file__).parent

VALUES = {
    "model/linear/w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "model/linear/w/Adam": np.full((2, 3), 0.25, np.float32),
    "model/scalar": np.float32(-1.5),
    "half": np.array([0.5, 3], np.float16),
    "brain": np.array([1, -3], np.float32),  # saved as bfloat16
    "double": np.array([[1e300], [-2.5]]),
    "counts/int64": np.array([2**40, -1], np.int64),
    "counts/int32": np.array([-(2**30)], np.int32),
    "counts/int16": np.array([-300], np.int16),
    "counts/int8": np.array([-3], np.int8),
    "counts/uint8": np.array([250], np.uint8),
    "flags": np.array([True, False, True]),
    "global_step": np.int64(7),
}


def many() -> dict[str, np.ndarray]:
    """Returns 150 variables, whose names take more than one block of an index."""
    return {f"scope_{n % 7}/layer_{n:03}/a_long_name/w": np.array([n, -n, n * 0.5], np.float32) for n in range(150)}


def save(name: str, step: int, values: dict[str, np.ndarray], sharded: bool = False) -> None:
    """Writes `name-step` with its index and its shards."""
    with tf1.Graph().as_default(), tf1.Session(config=tf1.ConfigProto(device_count={"CPU": 2})) as session:
        for number, (key, value) in enumerate(values.items()):
            with tf1.device(f"/cpu:{number % 2 if sharded else 0}"):
                value = tf.cast(value, tf.bfloat16) if key == "brain" else value
                tf1.get_variable(key, initializer=value, use_resource=False)
        session.run(tf1.global_variables_initializer())
        tf1.train.Saver(sharded=sharded).save(session, str(HERE / name), global_step=step, write_meta_graph=False)
    (HERE / "checkpoint").unlink()


save("tiny.ckpt", 7, VALUES)
save("many.ckpt", 3, many(), sharded=True)
