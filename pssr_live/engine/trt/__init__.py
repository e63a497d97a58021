"""TensorRT and TensorRT-RTX: one code for both, and for TensorRT 10 and 11.

``bindings`` finds the library, ``network`` builds an engine (in a process of its own that ``build``
starts and watches), ``cache`` keeps it, ``cuda`` and ``execution`` run it, ``prepare`` puts these
together, ``engine`` is what the daemon sees, ``compile`` builds ahead of time for other machines.
"""
