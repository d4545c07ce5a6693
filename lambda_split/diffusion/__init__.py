"""The device's half of a picture's arithmetic: solvers and noise, in numpy and without I/O.

Device and trunk run this same code, each on its own copy of the latents, and must stay equal to
the bit. So everything here is made of operations whose result IEEE 754 fixes: elementwise ``+``,
``-``, ``*``, ``/`` and square root, comparisons, and conversions between float64 and float32.
There is no sum over an array, no BLAS, and no ``exp``, ``log`` or ``cos`` of a C library, whose
last digits differ between machines; ``elementary`` has its own.
"""
