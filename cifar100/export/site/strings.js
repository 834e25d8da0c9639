// Every text of the page. To translate it, replace the values (and `locale`) in the package and export again: browsers
// keep the files of an exported site until sw.js changes. `lang` of index.html follows.

const locale = "en";

const percent = new Intl.NumberFormat(locale, { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 });
const number = new Intl.NumberFormat(locale);
const megabytes = (bytes) => (bytes / 1e6).toLocaleString(locale, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const strings = {
  locale,
  percent: (share) => percent.format(share),
  className: (name) => name.replaceAll("_", " "),

  title: "What is in this image?",
  network: (name) => name.replace(/^resnet/, "ResNet-"),
  lead: (count, network) => `A ${strings.network(network)} names one of ${number.format(count)} classes. It runs in your browser: images never leave this device.`,
  classesButton: (count) => `${number.format(count)} classes`,
  aboutButton: "About the model",
  openFull: "Open the full page",
  close: "Close",

  imageSection: "Image",
  empty: "Drop an image here",
  choose: "Choose images",
  camera: "Camera",
  showMap: "Show where the evidence is",
  dropHint: "Or drop images anywhere on the page, or paste one.",
  examples: "Examples",
  example: (name) => `Example: ${name}`,

  answerSection: "Answer",
  noAnswer: "The answer appears here.",
  working: "Looking at the image…",
  bars: "Most probable classes",
  unsure: "Unsure",
  nearest: (name, probability) => `The most probable class is ${name}, ${probability}.`,
  reasons: {
    uniform: () => "The image is a single color.",
    noise: () => "The image is noise.",
    low_confidence: (least) => `No class reaches ${percent.format(least)}.`,
  },
  seen: (size) => `What the network sees: ${size}×${size} pixels`,
  time: ({ prepare, network }) =>
    `${number.format(Math.round(prepare + network))} ms: ${number.format(Math.round(prepare))} to decode and resize, ${number.format(Math.round(network))} for the network`,
  weights: ({ name, sha256 }) => `${name}, SHA-256 ${sha256}`,
  precomputed: "Computed when this page was made; recomputed here once the model is loaded.",
  pictureLabel: (name, place) => `Your image; the evidence for ${name} is strongest ${place}.`,
  pictureLabelPlain: "Your image",
  places: [
    ["at the top left", "at the top", "at the top right"],
    ["at the left", "in the center", "at the right"],
    ["at the bottom left", "at the bottom", "at the bottom right"],
  ],
  several: "All images",
  severalProgress: (done, total) => `${number.format(done)} of ${number.format(total)} images answered`,
  tooMany: (count, most) => `${number.format(count)} images are too many at once; the first ${number.format(most)} are taken.`,
  photo: "photo",

  shoot: "Take the photo",
  cameraRefused: "There is no camera, or this page may not use it. Choose a file instead.",

  loading: (loaded, total) => `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`,
  starting: "Starting the model…",
  ready: "The model is ready.",
  retry: "Try again",
  privacy: "Images never leave this device.",
  offline: {
    ready: "This page now works offline, too.",
    denied: "This browser grants no storage here, so the model is loaded again at each visit.",
  },

  /** Why the model could not be loaded. */
  problems: {
    modelInfo: (detail) => `The description of the model, model.json, is missing or damaged (${detail}). Export the site again.`,
    missing: (detail) => `A file of this page is missing or damaged on the server: ${detail}. Export the site again, and upload all of it.`,
    modified: (detail) => `${detail} is not the file that this page was made with: its SHA-256 differs. It is not used. Export the site again, and upload all of it.`,
    offline: (detail) => `The connection broke while ${detail} was loading.`,
    noWebAssembly: () => "This browser has no WebAssembly (some switch it off for safety), which the model needs. Another browser, or another setting, helps.",
    canvasNoise: () => "This browser adds noise to the pixels that pages read (a protection against tracking), so answers would be wrong. Allow canvas access for this page.",
    workerFailed: () => "This browser cannot run the page's worker. It needs Chrome 97, Firefox 114, Safari 16.4, or newer.",
    failed: (detail) => `The model does not start in this browser: ${detail}`,
  },

  /** Why an image was not classified. */
  refusals: {
    empty: () => "This file is empty.",
    unreadable: () => "This file cannot be read; a folder cannot be, either.",
    notAnImage: () => "This is not an image that browsers read: PNG, JPEG, WebP, GIF, BMP and AVIF are.",
    unsupported: (format) => `This is a ${format} file, which this browser does not decode. Save it as PNG or JPEG.`,
    truncated: () => "The end of this image is missing: the file is incomplete.",
    damaged: () => "This image is damaged and cannot be decoded.",
    elongated: (size) => `This image is ${size}: too long and thin to be classified.`,
    tooManyBytes: (most) => `This file is larger than ${most} MB. Save a smaller copy.`,
    tooManyPixels: (most) => `This image has more pixels than this page takes (${most} megapixels). Save a smaller copy.`,
    noModel: () => "There is no answer, because the model could not be loaded.",
    gaveUp: () => "This image took too long, or too much memory, and was given up.",
    failed: (detail) => `This image could not be classified: ${detail}`,
  },

  aboutTitle: "About the model",
  limits: "It names one of its classes whatever it is shown, and is often wrong about images unlike its training images. Do not rely on it for anything that matters, and never to judge people.",
  about: {
    weights: "Weights",
    network: "Network",
    networkValue: ({ network, precision, image_size }) => `${strings.network(network)}, ${precision}, for ${image_size}×${image_size} pixels`,
    accuracy: "Accuracy",
    accuracyValue: ({ top1, images, split }) => `${percent.format(top1)} top-1 on ${images ? number.format(images) : "the"} ${split} images`,
    notMeasured: "not measured",
    top5: "Top-5 accuracy",
    superclass: "Superclass accuracy",
    trainedOn: "Trained on",
    assumed: "Assumed",
    probabilities: "Probabilities",
    calibrated: (temperature, origin) => `calibrated: logits divided by ${temperature.toLocaleString(locale, { maximumSignificantDigits: 3 })}${origin ? ` (${origin})` : ""}`,
    uncalibrated: "not calibrated",
    unsureRule: "Unsure",
    unsureValue: (least) => `if the highest probability is below ${percent.format(least)}, or the image is a single color or noise`,
    file: "Model file",
    fileValue: (bytes) => `${megabytes(bytes)} MB`,
    digest: "SHA-256 of the file",
    unverified: "not verified: this browser checks digests over https and on localhost only",
    madeWith: "Made with",
    runsOn: "Runs on",
  },
};
