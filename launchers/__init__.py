"""Starting the experiments elsewhere: does it fit, and how it is run there."""
