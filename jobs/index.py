"""`mets-ray index` for `ray job submit -- python jobs/index.py`; see mets_ray/cli.py."""

from mets_ray.cli import main

if __name__ == "__main__":
    main("index")
