# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train, score and look
#
# A whole run from Python: train a small SAGAN on handwritten digits, score it, and look at its attention. This takes
# about two minutes on two CPU cores. `sagan-jax train` runs the same network for 2,000 steps.

# %%
import dataclasses
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import sagan_jax
from sagan_jax.evaluation import attention_records
from sagan_jax.runs.experiments import load_experiment
from sagan_jax.runs.explorer import write_explorer
from sagan_jax.runs.report import write_report

# %% [markdown]
# ## Train
#
# A config is a frozen dataclass. `dataclasses.replace` changes what you want to change.

# %%
experiment = load_experiment("digits_32")
experiment = dataclasses.replace(
    experiment,
    training=dataclasses.replace(experiment.training, total_steps=800),
    recording=dataclasses.replace(experiment.recording, log_every_steps=200),
)
workdir = Path(tempfile.mkdtemp()) / "digits"
generator = sagan_jax.train(experiment, workdir)

# %% [markdown]
# `train` returns the generator. The same call on the same folder would resume the run, and
# `sagan_jax.load_run(workdir)` loads the generator again.

# %%
images, labels = generator.generate(30, labels=range(10), seed=1)
print(images.shape, images.dtype, labels[:10])
figure, axes = plt.subplots(3, 10, figsize=(8, 2.6), layout="constrained")
for axis, image, label in zip(axes.flat, images, labels, strict=True):
    axis.imshow(image, cmap="gray")
    axis.set_title(str(label), fontsize=7)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Score
#
# The name of a score says everything about it: 500 images, against the training images, in the features of a fixed
# random network. The other score is the kernel distance of the same features.

# %%
for name, value in sagan_jax.evaluate(workdir, "fd500_train_random", "kd500_train_random").items():
    print(f"{name}: {value:.3f}")

# %% [markdown]
# ## Look
#
# `open_run` opens everything that a run holds. Here the generator looks at its own samples, and the discriminator at
# real images.

# %%
run = sagan_jax.open_run(workdir)
discriminator = run.discriminator()
assert discriminator is not None  # weights that were imported may come without one
records = attention_records(run.generator(), discriminator, run.images(), count=8)
for record in records:
    for name, value in record.statistics().items():
        print(f"{name}: {value:.2f}")

# %% [markdown]
# Each record holds the images and the attention maps `[B, queries, keys]`. Here is where the middle of three images
# looks.

# %%
figure, axes = plt.subplots(len(records), 6, figsize=(8, 1.4 * len(records)), layout="constrained", squeeze=False)
for row, record in zip(axes, records, strict=True):
    layer = record.layers[0]
    height, width = layer.query_shape
    for number in range(3):
        row[2 * number].imshow(record.images[number], cmap="gray")
        row[2 * number + 1].imshow(
            layer.attention_map[number, height // 2 * width + width // 2].reshape(layer.key_shape)
        )
    row[0].set_ylabel(layer.name, fontsize=7)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ## The report and the explorer
#
# `sagan-jax report` and `sagan-jax explore` write these pages. Each is one file that needs nothing else.
# Here are [the report](report.html) and [the explorer](explorer.html) of this run.

# %%
print(write_report(workdir, Path("report.html"), budget=1_000_000), "bytes in report.html")
page, requested = write_explorer(workdir, Path("explorer.html"), num_samples=10, budget=2_000_000)
print(requested, "samples were asked for")
