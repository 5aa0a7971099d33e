"""What the hidden states know of an answer before it is drawn: linear probes, read-out in words, and patching.

`unigap.probe.study` runs all of it for one model; docs/probe.md says what each number means.
"""
