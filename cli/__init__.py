"""The command line: one file a command. Each builds the settings, calls the stage and echoes the result."""
