"""What can be told of a training before anything is started: does its model fit the task, the machine and the disk."""
