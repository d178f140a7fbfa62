"""What installs, packages and deploys the parts; nothing here runs in production."""
