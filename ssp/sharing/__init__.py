"""Results that go from hand to hand: packed into an archive, joined with others', compared with others'.

- `opening`: a folder of results, or an archive of one.
- `pack`: one archive with all that a claim rests on; `notes` and `crate` write what is said of it there.
- `merge`: results of several machines or groups as one.
- `compare`: two or more side by side.

Light: no torch, and no data.
"""
