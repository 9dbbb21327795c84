import sys

from jwt_server.cli import main

sys.exit(main())
