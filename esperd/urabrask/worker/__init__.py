"""The validator's own process: opens one kernel, tries it out beside the eager module, says what it measured."""
