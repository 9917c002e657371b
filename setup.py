"""Says what pyproject.toml cannot: every package that is found, and conf/ inside of asr_dni."""

from setuptools import find_namespace_packages, find_packages, setup

configurations = ["asr_dni.conf", *(f"asr_dni.conf.{folder}" for folder in find_namespace_packages("conf"))]
setup(packages=[*find_packages(include=["asr_dni*"]), *configurations])
