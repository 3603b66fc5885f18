defmodule Mlx.Weights do
  @moduledoc """
  Weights in files: Safetensors, GGUF, npy and npz, and the folders of models.

      weights = Mlx.Weights.open("Qwen3-0.6B")
      Mlx.Weights.names(weights)
      Mlx.Weights.tensor(weights, "model.norm.weight", type: :bf16)

      params = Mlx.Weights.load("Qwen3-0.6B", device: :gpu)
      Mlx.Weights.save("tuned", params, config: Mlx.Weights.load_config("Qwen3-0.6B"))

  `open/2` reads headers only. The bytes of a tensor are read when it is asked for, from the
  file to the device, without the memory of the VM: on the CPU straight to the tensor's, on a
  GPU with a copy in the host's memory as long as it takes. That happens on a thread of its
  own, so that computation goes on meanwhile.

  ## Formats

  | | opened | saved | what |
  |---|---|---|---|
  | Safetensors | yes | yes | all types but those of less than 8 bits and `F8_E8M0`; `BOOL` is `u8` |
  | folder | yes | yes | `model.safetensors`, or `model.safetensors.index.json` and the files it names |
  | GGUF | yes | no | version 2 and 3; plain types, `Q4_0`, `Q4_1` and `Q8_0` |
  | npy, npz | yes | yes | numbers, in either order of bytes and of axes; npz stored or deflated |

  What a file is shows in its first bytes, not in its name. A tensor of another type is among
  the names, and raises `Mlx.Error` with `kind: :type` when it is asked for. So does one
  without elements with `kind: :shape`, because Nx has no such tensors. NumPy has no name for
  `bf16`: Mlx takes the `V2` that MLX's Python writes for it, and saves no `bf16` to npy and npz.

  ## Quantized weights

  Weights are packed in blocks of GGUF, and in folders whose `config.json` has a
  `quantization`, as mlx-lm writes them: there `x.weight`, `x.scales` and `x.biases` are
  one weight. Each is a `Mlx.Quantization.Tensor` under the name of the weight, which stands
  where a weight stands, see `Mlx.Quantization`. The blocks of GGUF are put in MLX's order when they are loaded, in groups of 32; no value
  changes.

  ## Files from strangers

  Whatever is in a file, the worst that happens is an `Mlx.Error` with `kind: :io`: a header
  is checked against the file before anything is made of it, lengths and offsets are to fit
  the tensors, the names in an index are to be those of files in the same folder, and an
  archive gives no more bytes than its arrays have. Nothing in a file is ever run. Headers of
  more than 100 MB (128 MiB in GGUF) are refused.

  Files are read, not mapped to memory: access to a mapped file that someone cuts short ends
  the process. No file stays open; one that has changed since it was opened is refused.
  """

  alias Mlx.Quantization.Tensor, as: Quantized
  alias Mlx.Weights.{Entry, Folder, GGUF, Npy, Npz, Packed, Progress, Safetensors}
  alias Mlx.Weights.{Source, Store}
  alias Nx.Tensor, as: T

  @enforce_keys [:path, :format, :metadata, :order, :entries]
  defstruct @enforce_keys

  @type name :: String.t()

  @type t :: %__MODULE__{
          path: Path.t(),
          format: :safetensors | :gguf | :npy | :npz | :folder,
          metadata: map,
          order: [name],
          entries: %{name => struct}
        }

  @type value :: T.t() | Quantized.t()

  @typedoc """
  What is known of a tensor before it is loaded. The shape and the type are those of the
  values; of a quantized weight those that it stands for, and its `:quantization` has `:bits`,
  `:group_size` and `:mode`, else it is `nil`. The type is `nil` if Mlx has none, or if it
  is not in the file; `:stored` is the format's name of it.
  """
  @type info :: %{
          shape: tuple,
          type: Nx.Type.t() | nil,
          stored: String.t(),
          byte_size: non_neg_integer,
          quantization: map | nil
        }

  @doc """
  Opens a file or a folder, and reads its headers.

  `metadata` of the result is a map of what the file says of itself: strings in Safetensors,
  all kinds of values in GGUF, where numbers that are not finite are `:nan`, `:infinity` and
  `:neg_infinity`, and the `metadata` of the index of a folder.

  Raises `Mlx.Error` with `kind: :io` if there is no such file, or if it is malformed.

  ## Options

    * `:quantization` - how the weights are quantized that have scales, for Safetensors
      without `config.json`: a map or keyword list with `:bits`, `:group_size` and `:mode`,
      which is `:affine` by default. The default is what `config.json` of a folder says.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "open.safetensors")
      iex> Mlx.Weights.save(path, %{"w" => Nx.iota({2, 3})}, metadata: %{"step" => "7"})
      iex> weights = Mlx.Weights.open(path)
      iex> weights.metadata
      %{"step" => "7"}
      iex> Mlx.Weights.names(weights)
      ["w"]

  """
  @spec open(Path.t(), keyword) :: t
  def open(path, opts \\ []) do
    opts = Keyword.validate!(opts, [:quantization])
    path = IO.chardata_to_string(path)
    {format, {metadata, entries}} = parse!(path)
    entries = Folder.quantized!(entries, quantization(format, path, opts[:quantization]), path)

    %__MODULE__{
      path: path,
      format: format,
      metadata: metadata,
      order: Enum.map(entries, & &1.name),
      entries: Map.new(entries, &{&1.name, &1})
    }
  end

  defp parse!(path) do
    if File.dir?(path) do
      {:folder, Folder.parse!(path)}
    else
      source = Source.find!(path)
      format = source |> Source.read!(0, 6) |> format()
      {format, parser(format).parse!(source)}
    end
  end

  defp format(<<"GGUF", _::binary>>), do: :gguf
  defp format(<<0x93, "NUMPY">>), do: :npy
  defp format(<<"PK", 3, 4, _::binary>>), do: :npz
  defp format(<<"PK", 5, 6, _::binary>>), do: :npz
  defp format(_bytes), do: :safetensors

  defp parser(:gguf), do: GGUF
  defp parser(:npy), do: Npy
  defp parser(:npz), do: Npz
  defp parser(:safetensors), do: Safetensors

  defp quantization(:folder, path, nil), do: Folder.config(path)["quantization"]
  defp quantization(_format, _path, nil), do: nil

  defp quantization(format, _path, given) when format in [:folder, :safetensors] do
    given = Map.new(given, fn {key, value} -> {to_string(key), value} end)
    given = Map.update(given, "mode", "affine", &to_string/1)

    case Packed.settings(given) do
      {:ok, _settings} -> given
      :error -> raise ArgumentError, "no :quantization that is known: #{inspect(given)}"
    end
  end

  defp quantization(format, _path, _given) do
    raise ArgumentError, "there is nothing that :quantization can say of #{format}"
  end

  @doc """
  The names of the tensors, in the order of the file.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "names.npz")
      iex> Mlx.Weights.save(path, %{"a" => Nx.tensor(1), "b" => Nx.tensor(2)})
      iex> path |> Mlx.Weights.open() |> Mlx.Weights.names()
      ["a", "b"]

  """
  @spec names(t) :: [name]
  def names(%__MODULE__{order: order}), do: order

  @doc """
  What is known of a tensor without loading it.

  Raises `KeyError` if there is no tensor of that name.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "info.safetensors")
      iex> Mlx.Weights.save(path, %{"w" => Nx.iota({2, 3}, type: :bf16)})
      iex> path |> Mlx.Weights.open() |> Mlx.Weights.info("w")
      %{shape: {2, 3}, type: {:bf, 16}, stored: "BF16", byte_size: 12, quantization: nil}

  """
  @spec info(t, name) :: info
  def info(%__MODULE__{entries: entries}, name), do: entries |> Map.fetch!(name) |> Entry.info()

  @doc """
  Loads one tensor.

  Raises `KeyError` if there is no tensor of that name, and `Mlx.Error`: with `kind: :io` if
  the file can't be read or has changed, with `:type` or `:shape` if there can be no such
  tensor on the device, with `:memory` if there is no room for it.

  ## Options

    * `:device` - where it goes, `Mlx.Device.default/0` by default
    * `:type` - what floats are cast to, such as `:bf16`. The default is what they are in the
      file. Other types stay what they are. `f64` for a GPU is cast before it goes there. It is
      that of quantized weights, too, with their scales and biases; those of other modes than
      `:affine` are of `bf16` by default.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "tensor.safetensors")
      iex> Mlx.Weights.save(path, %{"w" => Nx.tensor([1.5, 2.5])})
      iex> tensor = path |> Mlx.Weights.open() |> Mlx.Weights.tensor("w", type: :f16)
      iex> {Nx.type(tensor), Nx.to_list(tensor)}
      {{:f, 16}, [1.5, 2.5]}

  """
  @spec tensor(t, name, keyword) :: value
  def tensor(%__MODULE__{entries: entries}, name, opts \\ []) do
    {device, type} = target(Keyword.validate!(opts, [:device, :type]))
    entries |> Map.fetch!(name) |> Entry.load(device, type)
  end

  defp target(opts) do
    device = Mlx.Device.check!(opts[:device] || Mlx.Device.default())
    type = opts[:type] && Nx.Type.normalize!(opts[:type])

    if type && not Entry.float?(type) do
      raise ArgumentError, ":type is one of floats, got: #{inspect(opts[:type])}"
    end

    {device, type}
  end

  @doc """
  A stream of `{name, tensor}`, each loaded when it is asked for.

  Takes the options of `tensor/3`, and `:only` of `load/2`. Raises as `tensor/3` does, when the
  tensor in question is asked for.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "stream.safetensors")
      iex> Mlx.Weights.save(path, %{"a" => Nx.tensor([1, 2]), "b" => Nx.tensor([3, 4])})
      iex> for {name, tensor} <- Mlx.Weights.stream(Mlx.Weights.open(path)) do
      ...>   {name, tensor |> Nx.sum() |> Nx.to_number()}
      ...> end
      [{"a", 3}, {"b", 7}]

  """
  @spec stream(t, keyword) :: Enumerable.t({name, value})
  def stream(%__MODULE__{} = weights, opts \\ []) do
    opts = Keyword.validate!(opts, [:device, :type, :only])
    {device, type} = target(opts)

    weights
    |> chosen(opts[:only])
    |> Stream.map(fn name -> {name, Entry.load(weights.entries[name], device, type)} end)
  end

  defp chosen(weights, nil), do: weights.order
  defp chosen(weights, only) when is_function(only, 1), do: Enum.filter(weights.order, only)

  defp chosen(weights, only) when is_list(only) do
    Enum.each(only, &Map.fetch!(weights.entries, &1))
    only
  end

  @doc """
  Loads all tensors of a file, a folder or what `open/2` gave, as a map of names to tensors.

  Raises as `open/2` and `tensor/3` do.

  ## Options

  Those of `open/2`, if it is given a path, those of `tensor/3`, and

    * `:only` - the tensors to load: a list of names, or a function that is given a name and
      says whether to load it. The default is all.
    * `:progress` - `true` for a bar on standard error, `false`, or a function that is called
      with the bytes that are loaded and those that will be in all. The default, `:auto`,
      shows a bar for 1 GiB and more if standard error is a terminal.

  ## Examples

      iex> path = Path.join(System.tmp_dir!(), "load.npz")
      iex> Mlx.Weights.save(path, %{"a" => Nx.tensor([1, 2]), "b" => Nx.tensor([3.5])})
      iex> weights = Mlx.Weights.load(path, device: :cpu, only: ["b"])
      iex> Nx.to_list(weights["b"])
      [3.5]
      iex> Map.keys(weights)
      ["b"]

  """
  @spec load(Path.t() | t, keyword) :: %{name => value}
  def load(path_or_weights, opts \\ [])

  def load(%__MODULE__{entries: entries} = weights, opts) do
    opts = Keyword.validate!(opts, [:device, :type, :only, progress: :auto])
    {progress, opts} = Keyword.pop(opts, :progress)
    names = chosen(weights, opts[:only])
    total = names |> Enum.map(&Entry.byte_size_of(entries[&1])) |> Enum.sum()
    report = Progress.reporter(progress, total)

    {loaded, _done} =
      for {name, value} <- stream(weights, opts), reduce: {[], 0} do
        {loaded, done} ->
          done = done + Entry.byte_size_of(entries[name])
          report.(done, total)
          {[{name, value} | loaded], done}
      end

    Map.new(loaded)
  end

  def load(path, opts) do
    {open, opts} = Keyword.split(opts, [:quantization])
    path |> open(open) |> load(opts)
  end

  @doc """
  Saves a map of names to tensors, which may be of any backend.

  The ending of `path` says what to: `.safetensors`, `.npz` or `.npy`, which takes a single
  tensor rather than a map. A path without an ending is a folder, which is made if need be.
  The files are there whole or, if saving fails, not at all, and replace those that were
  there.

  A `Mlx.Quantization.Tensor` is saved to Safetensors, as its parts; in a folder `config.json`
  says how it is quantized. Its name ends with `.weight`, and its groups lie along its last
  axis; others raise `ArgumentError`, see `Mlx.Quantization.transpose/1`. Names of axes are not
  saved, nor is the type of one of another mode than `:affine`.

  Raises `Mlx.Error` with `kind: :io` if the files can't be written, with `kind: :type` if the
  format lacks the type of a tensor, and what reading a tensor raises.

  ## Options

    * `:metadata` - a map of strings to strings, for Safetensors. Defaults to
      `%{"format" => "mlx"}`.
    * `:max_shard_size` - bytes of tensors from which on a folder gets another file, 5 GB by
      default. A tensor is never parted.
    * `:config` - a map that a folder gets as `config.json`, with the quantization of the
      weights added. Without it `config.json` is written only if some are quantized.

  ## Examples

      iex> folder = Path.join(System.tmp_dir!(), "saved")
      iex> tensors = %{"a" => Nx.iota({4}), "b" => Nx.iota({4})}
      iex> Mlx.Weights.save(folder, tensors, max_shard_size: 20, config: %{"layers" => 2})
      :ok
      iex> folder |> File.ls!() |> Enum.sort()
      ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
       "model.safetensors.index.json"]
      iex> Mlx.Weights.load_config(folder)
      %{"layers" => 2}

  """
  @spec save(Path.t(), %{name => value} | T.t(), keyword) :: :ok
  def save(path, tensors, opts \\ []), do: Store.save(IO.chardata_to_string(path), tensors, opts)

  @doc """
  The `config.json` of a folder, as a map with strings as keys.

  Raises `Mlx.Error` with `kind: :io` if there is none, or if it is no JSON object.

  ## Examples

      iex> folder = Path.join(System.tmp_dir!(), "configured")
      iex> Mlx.Weights.save(folder, %{"a" => Nx.tensor([1, 2])}, config: %{"layers" => 2})
      iex> Mlx.Weights.load_config(folder)
      %{"layers" => 2}

  """
  @spec load_config(Path.t()) :: %{String.t() => term}
  def load_config(folder), do: folder |> IO.chardata_to_string() |> Folder.config!()
end
