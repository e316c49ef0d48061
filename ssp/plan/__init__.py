"""Before anything runs: what a config asks for, how long it takes, disk and memory, and what would be cheaper.

- `work` counts clips, `rows` FLOPs; speeds are `measured` by records or assumed (`speeds`); `estimate` multiplies.
- `space` is disk and memory, `cheaper` plans changed copies of a config, `words` prints.
"""
