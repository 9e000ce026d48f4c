"""Nasty networks by the thousand, every certificate of theirs held against exact answers or adversarial points.

``recipes`` says what a network is made of, ``convex``, ``lipschitz``, ``plain`` and ``noise`` build and certify it,
``attack`` and ``exact`` say what is true, ``holding`` compares, ``ledger`` counts.
"""
