"""Generated videos for the demo: scenes of moving shapes, as archives in the layouts of the four real data sets.

- `shapes` and `motions` are the vocabulary, `scenes` the classes, `staging` and `render` make frames.
- `plans` names the files, `encode` and `archives` write them.
- `source` makes the classes that the demo's backbone is pre-trained on.
"""
