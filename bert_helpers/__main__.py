import sys

from bert_helpers.cli.main import main

sys.exit(main())
