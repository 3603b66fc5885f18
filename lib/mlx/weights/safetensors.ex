defmodule Mlx.Weights.Safetensors do
  @moduledoc false

  # Eight bytes with the length of a JSON header, the header, the bytes of the tensors
  # (https://huggingface.co/docs/safetensors).

  alias Mlx.Weights.{Entry, Source}

  @longest_header 100_000_000
  @most_axes 64

  @types %{
    "BOOL" => {8, {:u, 8}},
    "U8" => {8, {:u, 8}},
    "I8" => {8, {:s, 8}},
    "U16" => {16, {:u, 16}},
    "I16" => {16, {:s, 16}},
    "U32" => {32, {:u, 32}},
    "I32" => {32, {:s, 32}},
    "U64" => {64, {:u, 64}},
    "I64" => {64, {:s, 64}},
    "F8_E4M3" => {8, {:f8_e4m3fn, 8}},
    "F8_E5M2" => {8, {:f, 8}},
    "F16" => {16, {:f, 16}},
    "BF16" => {16, {:bf, 16}},
    "F32" => {32, {:f, 32}},
    "F64" => {64, {:f, 64}},
    "C64" => {64, {:c, 64}},
    "F4" => {4, nil},
    "F6_E2M3" => {6, nil},
    "F6_E3M2" => {6, nil},
    "F8_E8M0" => {8, nil},
    "F8_E4M3FNUZ" => {8, nil},
    "F8_E5M2FNUZ" => {8, nil}
  }

  @names for {name, {_, type}} when type != nil and name != "BOOL" <- @types,
             into: %{},
             do: {type, name}

  @doc """
  The metadata and the entries of a file.
  """
  def parse!(%Source{} = source) do
    header = header!(source)

    case Mlx.Weights.JSON.decode(header, 3, @most_axes) do
      {:ok, %{} = tensors} ->
        {metadata, tensors} = Map.pop(tensors, "__metadata__", %{})
        start = 8 + byte_size(header)
        entries = for {name, fields} <- tensors, do: entry!(source, start, name, fields)

        {metadata!(source, metadata),
         entries |> Enum.sort_by(&{&1.offset, &1.length}) |> gapless!(source, start)}

      {:ok, _other} ->
        Source.fail!(source, "the header is no JSON object")

      {:error, reason} ->
        Source.fail!(source, "the header #{reason}")
    end
  end

  defp header!(%Source{size: size} = source) do
    case Source.read!(source, 0, 8) do
      <<length::little-64>> when length <= @longest_header and length + 8 <= size ->
        header = Source.read!(source, 8, length)
        if byte_size(header) < length, do: Source.fail!(source, "was cut short")
        header

      <<length::little-64>> when length <= @longest_header ->
        Source.fail!(
          source,
          "has #{size} bytes, the header alone has #{length}: it was cut short"
        )

      _ ->
        Source.fail!(source, "is no file of safetensors, npy, npz or GGUF")
    end
  end

  # MLX writes null for none.
  defp metadata!(_source, nil), do: %{}

  defp metadata!(source, metadata) do
    if is_map(metadata) and Enum.all?(metadata, fn {_, value} -> is_binary(value) end),
      do: metadata,
      else: Source.fail!(source, "__metadata__ has something else than strings")
  end

  defp entry!(source, start, name, fields) do
    with %{"dtype" => stored, "shape" => shape, "data_offsets" => [first, last]} <- fields,
         {bits, type} <- Map.get(@types, stored, :unknown),
         true <- Enum.all?([first, last | List.wrap(shape)], &(is_integer(&1) and &1 >= 0)),
         true <- is_list(shape) and first <= last,
         true <- Enum.product(shape) * bits == (last - first) * 8 do
      %Entry{
        name: :binary.copy(name),
        source: source,
        offset: start + first,
        length: last - first,
        stored: :binary.copy(stored),
        type: type,
        shape: shape
      }
    else
      _ ->
        Source.fail!(
          source,
          "the type, shape and offsets of tensor #{Source.shown(name)} are not there, " <>
            "not known or don't fit each other"
        )
    end
  end

  # Each byte after the header belongs to one tensor.
  defp gapless!(entries, %Source{size: size} = source, start) do
    last =
      for entry <- entries, reduce: start do
        next when next == entry.offset -> next + entry.length
        _ -> Source.fail!(source, "tensor #{Source.shown(entry.name)} lies not after the others")
      end

    cond do
      last > size -> Source.fail!(source, "has #{size} bytes of #{last}: it was cut short")
      last < size -> Source.fail!(source, "has #{size - last} bytes that belong to no tensor")
      true -> entries
    end
  end

  @doc """
  The format's name of a type, or `nil`.
  """
  def type_name(type), do: Map.get(@names, type)

  @doc """
  The bytes of a file of tensors, given as pairs of names and templates, and their order:
  the widest elements first, so that each is aligned.
  """
  def header(templates, metadata) do
    sorted = Enum.sort_by(templates, fn {name, %{type: {_, bits}}} -> {-bits, name} end)

    {fields, _} =
      Enum.map_reduce(sorted, 0, fn {name, %{type: type, shape: shape}}, first ->
        {_, bits} = type
        last = first + div(Tuple.product(shape) * bits, 8)
        shape = Tuple.to_list(shape)
        {{name, %{dtype: type_name(type), shape: shape, data_offsets: [first, last]}}, last}
      end)

    json = JSON.encode!(Map.new([{"__metadata__", metadata} | fields]))
    filler = rem(8 - rem(byte_size(json), 8), 8)
    length = byte_size(json) + filler

    if length > @longest_header do
      raise ArgumentError, "the names and shapes take #{length} bytes, more than readers accept"
    end

    {[<<length::little-64>>, json, List.duplicate(?\s, filler)], Enum.map(sorted, &elem(&1, 0))}
  end
end
