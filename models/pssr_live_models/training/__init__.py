"""Train models on a lab's own movies: ``pssr-live train``.

The way from movies to a package: `recordings` reads them, `scenes` cuts and undersamples them (or
`pairs` reads undersampled recordings with their ground truth), `samples` makes training samples,
`loop` trains, `packages` writes what came out; `command` puts them together.
"""
