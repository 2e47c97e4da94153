"""`eightfold run`: the stages chained into one resumable job."""
