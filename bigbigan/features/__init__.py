"""Keep the features of many images in a folder of Parquet files, and search them.

`shards` says what such a folder holds and reads it, `extraction` fills it from images and a model, `search` finds
nearest neighbours in it or in arrays.
"""
