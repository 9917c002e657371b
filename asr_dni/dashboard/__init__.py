"""Results in a browser: noise curves, matrices of studies, runs, and one clip under noise; served on this machine.

Dash draws the pages. A page is a :class:`~asr_dni.dashboard.view.View`; what it shows is a
:class:`~asr_dni.dashboard.links.State`, which is a link. Nothing is imported here: Dash takes a second.
"""
