defmodule Mlx.Weights.Folder do
  @moduledoc false

  # A model's folder, as Hugging Face has them: `config.json`, and `model.safetensors` or
  # an index of several such files.

  alias Mlx.Weights.{Entry, JSON, Packed, Safetensors, Source}

  @index "model.safetensors.index.json"
  @single "model.safetensors"
  @longest_config 16 * 1024 * 1024
  @longest_index 100_000_000

  def index, do: @index
  def single, do: @single

  @doc """
  The metadata and entries of a folder's files.
  """
  def parse!(folder) do
    cond do
      File.exists?(Path.join(folder, @single)) ->
        folder |> Path.join(@single) |> Source.find!() |> Safetensors.parse!()

      File.exists?(Path.join(folder, @index)) ->
        shards!(folder)

      true ->
        Source.fail!(folder, "has neither #{@single} nor #{@index}")
    end
  end

  defp shards!(folder) do
    source = Source.find!(Path.join(folder, @index))
    index = json!(source, @longest_index, 4)
    map = weight_map!(source, index)
    files = map |> Map.values() |> Enum.uniq() |> Enum.sort()
    Enum.each(files, &check_name!(source, &1))

    shards =
      for file <- files do
        {_metadata, entries} = folder |> Path.join(file) |> Source.find!() |> Safetensors.parse!()
        {file, entries}
      end

    check_map!(source, map, shards)
    {metadata(index), Enum.flat_map(shards, &elem(&1, 1))}
  end

  defp metadata(%{"metadata" => %{} = metadata}), do: metadata
  defp metadata(_index), do: %{}

  defp weight_map!(source, index) do
    case index do
      %{"weight_map" => %{} = map} when map_size(map) > 0 ->
        if Enum.all?(map, fn {_, file} -> is_binary(file) end),
          do: map,
          else: Source.fail!(source, "names files that are no strings")

      _ ->
        Source.fail!(source, "has no weight_map")
    end
  end

  # A name that leads out of the folder is none of a shard's.
  defp check_name!(source, file) do
    if Path.basename(file) != file or file in ["", ".", ".."] or
         String.contains?(file, ["/", "\\", <<0>>]) do
      Source.fail!(source, "names #{Source.shown(file)}, which is no file of the folder")
    end
  end

  defp check_map!(source, map, shards) do
    found = for {file, entries} <- shards, entry <- entries, do: {entry.name, file}

    if length(found) != found |> Enum.uniq_by(&elem(&1, 0)) |> length() do
      Source.fail!(source, "names files that have a tensor twice")
    end

    found = Map.new(found)

    for {name, file} <- map, found[name] != file do
      Source.fail!(source, "says that #{Source.shown(name)} is in #{Source.shown(file)}, not so")
    end
  end

  @doc """
  The config of a folder.
  """
  def config!(folder) do
    source = Source.find!(Path.join(folder, "config.json"))

    case json!(source, @longest_config, 64) do
      %{} = config -> config
      _ -> Source.fail!(source, "is no JSON object")
    end
  end

  @doc """
  The config of a folder, if there is one.
  """
  def config(folder) do
    if File.exists?(Path.join(folder, "config.json")), do: config!(folder), else: %{}
  end

  defp json!(%Source{size: size} = source, longest, _depth) when size > longest do
    Source.fail!(source, "has #{size} bytes, more than #{longest}")
  end

  defp json!(%Source{size: size} = source, _longest, depth) do
    case source |> Source.read!(0, size) |> JSON.decode(depth, 1_000_000) do
      {:ok, value} -> value
      {:error, reason} -> Source.fail!(source, reason)
    end
  end

  @doc """
  Puts the parts of quantized weights together: `x.weight`, `x.scales` and `x.biases`,
  as `quantization` says, the part of the config of that name.
  """
  def quantized!(entries, nil, _path), do: entries

  def quantized!(entries, %{} = quantization, path) do
    by_name = Map.new(entries, &{&1.name, &1})

    whole =
      for %{name: name, stored: "U32"} = entry <- entries,
          String.ends_with?(name, ".weight"),
          layer = String.replace_suffix(name, ".weight", ""),
          scales = by_name[layer <> ".scales"],
          settings = settings(quantization, layer),
          into: %{},
          do: {name, quantized!(entry, scales, by_name[layer <> ".biases"], settings, path)}

    parts =
      for {_, %{form: {:quantized, parts}}} <- whole,
          part <- [parts.scales, parts.biases],
          part != nil,
          into: MapSet.new(),
          do: part.name

    for entry <- entries, entry.name not in parts, do: whole[entry.name] || entry
  end

  def quantized!(_entries, _other, path),
    do: Source.fail!(path, "has a quantization that is none")

  # A layer may have settings of its own, or `false`.
  defp settings(quantization, layer), do: Map.get(quantization, layer, quantization)

  defp quantized!(%Entry{} = entry, scales, biases, settings, path) do
    with {:ok, settings} <- Packed.settings(settings),
         biases = if(settings.mode == :affine, do: biases),
         true <- Packed.fits?(entry, scales, biases, settings) do
      parts = Map.merge(settings, %{scales: scales, biases: biases})
      %{entry | form: {:quantized, parts}}
    else
      :error ->
        Source.fail!(path, "has a quantization of #{Source.shown(entry.name)} that is not known")

      false ->
        name = Source.shown(entry.name)
        Source.fail!(path, "has scales or biases of #{name} that don't fit its quantization")
    end
  end
end
