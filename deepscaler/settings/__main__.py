"""`python -m deepscaler.settings`: print a schema."""

from deepscaler.settings import main

if __name__ == "__main__":
    raise SystemExit(main())
