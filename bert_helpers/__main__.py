import sys

from bert_helpers.cli import main

sys.exit(main())
