"""The 100 fine classes of CIFAR-100, its 20 superclasses, and the map between them.

Class ids are positions in these tuples, as in the `meta` file of the dataset (Krizhevsky 2009,
https://www.cs.toronto.edu/~kriz/cifar.html).
"""

_FINE_OF_SUPERCLASS = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

SUPERCLASSES: tuple[str, ...] = tuple(_FINE_OF_SUPERCLASS)
"""The 20 superclass names; the superclass id is the position."""

CLASSES: tuple[str, ...] = tuple(sorted(name for names in _FINE_OF_SUPERCLASS.values() for name in names))
"""The 100 fine class names, alphabetical; the class id is the position."""

_SUPERCLASS_OF_NAME = {name: i for i, names in enumerate(_FINE_OF_SUPERCLASS.values()) for name in names}

SUPERCLASS_OF: tuple[int, ...] = tuple(_SUPERCLASS_OF_NAME[name] for name in CLASSES)
"""The superclass id of each of the 100 class ids."""
