"""Everything that touches a language model: hidden states and log-probabilities, onto disk.

`python -m extract run` writes an activation store; `jelicit.activations` reads it. Of jelicit only
`jelicit.data`, `jelicit.activations`, `jelicit.disk` and how commands end are imported here.
"""
