"""`mets-ray prepare` for `ray job submit -- python jobs/prepare.py`; see mets_ray/cli.py."""

from mets_ray.cli import main

if __name__ == "__main__":
    main("prepare")
