"""``python -m fastai_deploy`` is ``fdeploy``."""

from fastai_deploy.cli import main

if __name__ == "__main__":
    main()
