defmodule Mlx.Weights.Store do
  @moduledoc false

  # Saving: which files there are to be, and what is in each.

  alias Mlx.Quantization.Tensor, as: Quantized
  alias Mlx.Weights.{Folder, Npy, Npz, Safetensors, Writer}
  alias Nx.Tensor, as: T

  @shard_size 5_000_000_000
  @metadata %{"format" => "mlx"}

  def save(path, tensors, opts) do
    case Path.extname(path) do
      ".safetensors" -> save_safetensors(path, tensors, opts)
      ".npz" -> save_npz(path, tensors, opts)
      ".npy" -> save_npy(path, tensors, opts)
      "" -> save_folder(path, tensors, opts)
      other -> refuse_ending(path, other, tensors, opts)
    end
  end

  # Names of models have dots.
  defp refuse_ending(path, ending, tensors, opts) do
    if File.dir?(path) or opts[:config] != nil do
      save_folder(path, tensors, opts)
    else
      raise ArgumentError,
            "the ending #{ending} is none of .safetensors, .npz and .npy; for a folder of that " <>
              "name, make it or give :config"
    end
  end

  defp save_safetensors(path, tensors, opts) do
    opts = Keyword.validate!(opts, metadata: @metadata)
    tensors = parts(tensors)
    check_types!(tensors, &Safetensors.type_name/1, "Safetensors")
    Writer.write!([{path, safetensors(tensors, metadata!(opts[:metadata]))}])
  end

  defp save_npz(path, tensors, opts) do
    Keyword.validate!(opts, [])
    tensors = plain!(tensors)
    check_types!(tensors, &Npy.type_name/1, "npz")
    Writer.write!([{path, &write_npz(tensors, &1)}])
  end

  defp save_npy(path, %T{} = tensor, opts) do
    Keyword.validate!(opts, [])
    tensor = Nx.devectorize(tensor)
    check_types!([{Path.basename(path), tensor}], &Npy.type_name/1, "npy")
    Writer.write!([{path, & &1.([Npy.header(tensor), Nx.to_binary(tensor)])}])
  end

  defp save_npy(_path, other, _opts) do
    raise ArgumentError, "a tensor is saved to .npy, got: #{inspect(other)}"
  end

  ## Tensors

  # Quantized weights as what they are made of, in the order of the names.
  defp parts(tensors) do
    for {name, value} <- checked(tensors), part <- parts(name, value), do: part
  end

  defp parts(name, %Quantized{} = quantized) do
    layer = String.replace_suffix(name, ".weight", "")
    biases = if quantized.biases, do: [{layer <> ".biases", quantized.biases}], else: []
    [{name, quantized.packed}, {layer <> ".scales", quantized.scales}] ++ biases
  end

  defp parts(name, tensor), do: [{name, Nx.devectorize(tensor)}]

  defp plain!(tensors) do
    for {name, value} <- checked(tensors) do
      if is_struct(value, Quantized) do
        raise ArgumentError, "#{inspect(name)} is quantized: save it to Safetensors"
      end

      {name, Nx.devectorize(value)}
    end
  end

  defp checked(%{} = tensors) when not is_struct(tensors) do
    for {name, value} <- Enum.sort_by(tensors, &elem(&1, 0)) do
      name = name!(name, value)
      if is_struct(value, Quantized), do: check_layout!(name, value)
      {name, value}
    end
  end

  defp checked(other) do
    raise ArgumentError, "a map of names to tensors is saved, got: #{inspect(other)}"
  end

  defp name!(name, %module{}) when is_binary(name) and module in [T, Quantized] do
    if name == "__metadata__" or not String.valid?(name) do
      raise ArgumentError, "#{inspect(name)} can't be the name of a tensor"
    end

    name
  end

  defp name!(name, value) do
    raise ArgumentError,
          "a map of strings to tensors is saved, got: #{inspect(name)} => #{inspect(value)}"
  end

  defp check_layout!(name, %Quantized{transposed: transposed}) do
    if not String.ends_with?(name, ".weight") do
      raise ArgumentError, "names of quantized weights end with .weight, got: #{inspect(name)}"
    end

    # Files have the parts alone, which then stand for another tensor.
    if transposed do
      raise ArgumentError,
            "#{inspect(name)} has its groups along its rows: save Mlx.Quantization.transpose/1 of it"
    end
  end

  defp check_types!(tensors, type_name, format) do
    names = Enum.map(tensors, &elem(&1, 0))

    case names -- Enum.uniq(names) do
      [] -> :ok
      [name | _] -> raise ArgumentError, "#{inspect(name)} is the name of two tensors"
    end

    for {name, tensor} <- tensors, type_name.(tensor.type) == nil do
      raise Mlx.Error,
        kind: :type,
        message:
          "#{format} has no type for #{inspect(name)}, which is of " <>
            "#{Nx.Type.to_string(tensor.type)}: cast it with Nx.as_type/2"
    end
  end

  defp metadata!(metadata) do
    texts? = fn {name, value} ->
      Enum.all?([name, value], &(is_binary(&1) and String.valid?(&1)))
    end

    if is_map(metadata) and Enum.all?(metadata, texts?) do
      metadata
    else
      raise ArgumentError, ":metadata is a map of strings to strings, got: #{inspect(metadata)}"
    end
  end

  ## Formats

  # The function that writes a file, one tensor after the other.
  defp safetensors(tensors, metadata) do
    {header, order} = Safetensors.header(tensors, metadata)
    by_name = Map.new(tensors)

    fn write ->
      write.(header)
      for name <- order, do: write.(Nx.to_binary(by_name[name]))
    end
  end

  defp write_npz(tensors, write) do
    {lines, length} = Enum.map_reduce(tensors, 0, &write_member(&1, &2, write))
    write.(lines)
    write.(Npz.ending(length(lines), IO.iodata_length(lines), length))
  end

  defp write_member({name, tensor}, offset, write) do
    header = Npy.header(tensor)
    bytes = Nx.to_binary(tensor)
    crc = header |> :erlang.crc32() |> :erlang.crc32(bytes)
    size = byte_size(header) + byte_size(bytes)
    {local, line} = Npz.member(name <> ".npy", crc, size, offset)
    write.([local, header, bytes])
    {line, offset + byte_size(local) + size}
  end

  ## Folders

  defp save_folder(folder, tensors, opts) do
    defaults = [config: nil, metadata: @metadata, max_shard_size: @shard_size]
    opts = Keyword.validate!(opts, defaults)
    metadata = metadata!(opts[:metadata])
    parts = parts(tensors)
    check_types!(parts, &Safetensors.type_name/1, "Safetensors")
    shards = shards(parts, shard_size!(opts[:max_shard_size]))
    made? = make_folder!(folder)

    files =
      for({file, tensors} <- shards, do: {file, safetensors(tensors, metadata)}) ++
        index(shards) ++ config(opts[:config], quantization(tensors))

    names = Enum.map(files, &elem(&1, 0))

    try do
      files = for {file, write} <- files, do: {Path.join(folder, file), write}
      Writer.write!(files, fn -> obsolete(folder, names) end)
    rescue
      error ->
        if made?, do: File.rmdir(folder)
        reraise error, __STACKTRACE__
    end
  end

  defp shard_size!(size) when is_integer(size) and size > 0, do: size

  defp shard_size!(other) do
    raise ArgumentError, ":max_shard_size is a number of bytes, got: #{inspect(other)}"
  end

  defp make_folder!(folder) do
    made? = not File.exists?(folder)

    case File.mkdir_p(folder) do
      :ok -> made?
      {:error, reason} -> Mlx.Weights.Source.fail!(folder, Mlx.Weights.Source.format(reason))
    end
  end

  defp shards(parts, limit) do
    case Enum.chunk_while(parts, {[], 0}, &chunk(&1, &2, limit), &{:cont, elem(&1, 0), []}) do
      [single] ->
        [{Folder.single(), single}]

      several ->
        count = length(several)
        for {shard, at} <- Enum.with_index(several, 1), do: {shard_name(at, count), shard}
    end
  end

  defp chunk({_, tensor} = part, {[], _size}, _limit), do: {:cont, {[part], Nx.byte_size(tensor)}}

  defp chunk({_, tensor} = part, {shard, size}, limit) do
    case size + Nx.byte_size(tensor) do
      size when size > limit -> {:cont, shard, {[part], Nx.byte_size(tensor)}}
      size -> {:cont, {[part | shard], size}}
    end
  end

  defp shard_name(at, count) do
    [at, count] = for number <- [at, count], do: String.pad_leading("#{number}", 5, "0")
    "model-#{at}-of-#{count}.safetensors"
  end

  defp index([_single]), do: []

  defp index(shards) do
    sizes = for {_, tensors} <- shards, {_, tensor} <- tensors, do: Nx.byte_size(tensor)
    map = for {file, tensors} <- shards, {name, _} <- tensors, into: %{}, do: {name, file}
    index = %{metadata: %{total_size: Enum.sum(sizes)}, weight_map: map}
    [{Folder.index(), & &1.(JSON.encode!(index))}]
  end

  # What most weights have is said once.
  defp quantization(tensors) do
    layers =
      for {name, %Quantized{} = quantized} <- tensors do
        settings = Map.take(quantized, [:bits, :group_size, :mode])
        {String.replace_suffix(name, ".weight", ""), settings}
      end

    if layers != [] do
      {most, _} = layers |> Enum.frequencies_by(&elem(&1, 1)) |> Enum.max_by(&elem(&1, 1))
      layers |> Enum.reject(&(elem(&1, 1) == most)) |> Map.new() |> Map.merge(most)
    end
  end

  defp config(nil, nil), do: []
  defp config(config, nil), do: [config(Map.delete(config, "quantization"))]
  defp config(nil, quantization), do: config(%{}, quantization)
  defp config(config, quantization), do: [config(Map.put(config, "quantization", quantization))]
  defp config(config), do: {"config.json", & &1.(JSON.encode!(config))}

  # Files of weights that were there before, which would be taken for these or their parts.
  defp obsolete(folder, written) do
    for file <- File.ls!(folder), file not in written, weights?(file), do: Path.join(folder, file)
  end

  defp weights?(file) do
    file in [Folder.single(), Folder.index()] or file =~ ~r/\Amodel-\d{5}-of-\d{5}\.safetensors\z/
  end
end
