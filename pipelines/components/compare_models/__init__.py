"""Training, step: the gate. Is the new version better than the champion, on the latest labels?"""
