defmodule Mlx.Weights.GGUF do
  @moduledoc false

  # A header of metadata and tensors, then their bytes, each tensor aligned
  # (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

  alias Mlx.Weights.{Blocks, Entry, Source}

  # Vocabularies make headers of some tens of megabytes.
  @longest_header 128 * 1024 * 1024
  @first_read 1024 * 1024
  @most_axes 8
  @deepest_array 4

  # Name, elements of a block, bytes of a block, type.
  @types %{
    0 => {"F32", 1, 4, {:f, 32}},
    1 => {"F16", 1, 2, {:f, 16}},
    2 => {"Q4_0", 32, 18, :q4_0},
    3 => {"Q4_1", 32, 20, :q4_1},
    6 => {"Q5_0", 32, 22, nil},
    7 => {"Q5_1", 32, 24, nil},
    8 => {"Q8_0", 32, 34, :q8_0},
    10 => {"Q2_K", 256, 84, nil},
    11 => {"Q3_K", 256, 110, nil},
    12 => {"Q4_K", 256, 144, nil},
    13 => {"Q5_K", 256, 176, nil},
    14 => {"Q6_K", 256, 210, nil},
    15 => {"Q8_K", 256, 292, nil},
    16 => {"IQ2_XXS", 256, 66, nil},
    17 => {"IQ2_XS", 256, 74, nil},
    18 => {"IQ3_XXS", 256, 98, nil},
    19 => {"IQ1_S", 256, 50, nil},
    20 => {"IQ4_NL", 32, 18, nil},
    21 => {"IQ3_S", 256, 110, nil},
    22 => {"IQ2_S", 256, 82, nil},
    23 => {"IQ4_XS", 256, 136, nil},
    24 => {"I8", 1, 1, {:s, 8}},
    25 => {"I16", 1, 2, {:s, 16}},
    26 => {"I32", 1, 4, {:s, 32}},
    27 => {"I64", 1, 8, {:s, 64}},
    28 => {"F64", 1, 8, {:f, 64}},
    29 => {"IQ1_M", 256, 56, nil},
    30 => {"BF16", 1, 2, {:bf, 16}},
    34 => {"TQ1_0", 256, 54, nil},
    35 => {"TQ2_0", 256, 66, nil},
    39 => {"MXFP4", 32, 17, nil}
  }

  @doc """
  The metadata and the entries of a file.
  """
  def parse!(%Source{} = source) do
    {metadata, tensors, length} = header!(source, @first_read)
    alignment = alignment!(source, metadata)
    start = div(length + alignment - 1, alignment) * alignment
    entries = for tensor <- tensors, do: entry!(source, start, alignment, tensor)
    if duplicate?(entries), do: Source.fail!(source, "has a tensor twice")
    {metadata, entries |> Enum.sort_by(&{&1.offset, &1.length}) |> separate!(source)}
  end

  # How long the header is shows only at its end.
  defp header!(%Source{size: size} = source, length) do
    bytes = Source.read!(source, 0, length)

    try do
      header(bytes)
    catch
      {__MODULE__, :more} when byte_size(bytes) < length or length >= size ->
        Source.fail!(source, "was cut short, or its header says what is not so")

      {__MODULE__, :more} when length >= @longest_header ->
        Source.fail!(source, "has a header of more than #{@longest_header} bytes")

      {__MODULE__, :more} ->
        header!(source, min(length * 4, @longest_header))

      {__MODULE__, reason} ->
        Source.fail!(source, reason)
    end
  end

  defp header(
         <<"GGUF", version::little-32, tensors::little-64, pairs::little-64, rest::binary>> = all
       )
       when version in [2, 3] do
    {metadata, rest} = pairs(pairs, rest, %{})
    {tensors, rest} = tensors(tensors, rest, [])
    {metadata, tensors, byte_size(all) - byte_size(rest)}
  end

  defp header(<<"GGUF", version::little-32, _::binary>>) when version not in [2, 3] do
    refuse("is GGUF of version #{version}; 2 and 3 are known, little-endian")
  end

  defp header(_bytes), do: refuse(:more)

  defp refuse(reason), do: throw({__MODULE__, reason})

  ## Metadata

  defp pairs(0, rest, metadata), do: {metadata, rest}

  defp pairs(count, bytes, metadata) do
    {name, rest} = string(bytes)
    if is_map_key(metadata, name), do: refuse("has metadata #{Source.shown(name)} twice")

    case rest do
      <<type::little-32, rest::binary>> ->
        {value, rest} = value(type, rest, 0)
        pairs(count - 1, rest, Map.put(metadata, name, value))

      _ ->
        refuse(:more)
    end
  end

  defp string(<<length::little-64, string::binary-size(length), rest::binary>>),
    do: {:binary.copy(string), rest}

  defp string(_bytes), do: refuse(:more)

  defp value(0, <<value, rest::binary>>, _), do: {value, rest}
  defp value(1, <<value::signed, rest::binary>>, _), do: {value, rest}
  defp value(2, <<value::little-16, rest::binary>>, _), do: {value, rest}
  defp value(3, <<value::little-signed-16, rest::binary>>, _), do: {value, rest}
  defp value(4, <<value::little-32, rest::binary>>, _), do: {value, rest}
  defp value(5, <<value::little-signed-32, rest::binary>>, _), do: {value, rest}
  defp value(6, <<bits::little-32, rest::binary>>, _), do: {float(<<bits::32>>), rest}
  defp value(7, <<value, rest::binary>>, _) when value in [0, 1], do: {value == 1, rest}
  defp value(8, bytes, _), do: string(bytes)
  defp value(10, <<value::little-64, rest::binary>>, _), do: {value, rest}
  defp value(11, <<value::little-signed-64, rest::binary>>, _), do: {value, rest}
  defp value(12, <<bits::little-64, rest::binary>>, _), do: {float(<<bits::64>>), rest}

  defp value(9, <<type::little-32, count::little-64, rest::binary>>, depth)
       when depth < @deepest_array do
    if byte_size(rest) < count, do: refuse(:more)
    array(count, type, rest, depth + 1, [])
  end

  defp value(9, _bytes, @deepest_array), do: refuse("has metadata that is nested")
  defp value(7, <<_, _::binary>>, _), do: refuse("has a boolean that is neither true nor false")
  defp value(type, _bytes, _depth) when type in 0..12, do: refuse(:more)
  defp value(type, _bytes, _depth), do: refuse("has metadata of type #{type}, which is not known")

  defp array(0, _type, rest, _depth, values), do: {Enum.reverse(values), rest}

  defp array(count, type, bytes, depth, values) do
    {value, rest} = value(type, bytes, depth)
    array(count - 1, type, rest, depth, [value | values])
  end

  defp float(<<value::float-32>>), do: value
  defp float(<<value::float-64>>), do: value
  defp float(<<0::1, 255, 0::23>>), do: :infinity
  defp float(<<1::1, 255, 0::23>>), do: :neg_infinity
  defp float(<<0::1, 2047::11, 0::52>>), do: :infinity
  defp float(<<1::1, 2047::11, 0::52>>), do: :neg_infinity
  defp float(_bits), do: :nan

  defp alignment!(source, metadata) do
    case Map.get(metadata, "general.alignment", 32) do
      alignment when is_integer(alignment) and alignment in 1..65_536 -> alignment
      _ -> Source.fail!(source, "has an alignment that is none")
    end
  end

  ## Tensors

  defp tensors(0, rest, tensors), do: {Enum.reverse(tensors), rest}

  defp tensors(count, bytes, tensors) do
    with {name, <<axes::little-32, rest::binary>>} when axes <= @most_axes <- string(bytes),
         <<dims::binary-size(axes * 8), type::little-32, offset::little-64, rest::binary>> <- rest do
      # The first dimension is the one whose elements lie side by side.
      shape = for <<dim::little-64 <- dims>>, reduce: [], do: (shape -> [dim | shape])
      tensors(count - 1, rest, [{name, shape, type, offset} | tensors])
    else
      {_name, <<_axes::32, _::binary>>} -> refuse("has a tensor of more than #{@most_axes} axes")
      _ -> refuse(:more)
    end
  end

  defp entry!(source, start, alignment, {name, shape, number, offset}) do
    {stored, elements, bytes, type} = type!(source, name, number)
    count = Enum.product(shape)

    if rem(List.last(shape, 1), elements) != 0 do
      Source.fail!(source, "tensor #{Source.shown(name)} does not fill its blocks of #{stored}")
    end

    if rem(offset, alignment) != 0 do
      Source.fail!(source, "tensor #{Source.shown(name)} is not aligned")
    end

    %Entry{
      name: name,
      source: source,
      offset: start + offset,
      length: div(count, elements) * bytes,
      stored: stored,
      type: if(is_tuple(type), do: type),
      shape: shape,
      form: if(Blocks.kind?(type), do: {:blocks, type}, else: :plain)
    }
  end

  defp type!(source, name, number) do
    Map.get(@types, number) ||
      Source.fail!(source, "tensor #{Source.shown(name)} has type #{number}, which is not known")
  end

  defp duplicate?(entries), do: entries |> Enum.uniq_by(& &1.name) |> length() != length(entries)

  defp separate!(entries, %Source{size: size} = source) do
    for entry <- entries, reduce: 0 do
      free when entry.offset < free ->
        Source.fail!(source, "tensor #{Source.shown(entry.name)} lies upon another one")

      _ when entry.offset + entry.length > size ->
        Source.fail!(source, "was cut short: tensor #{Source.shown(entry.name)} is not all there")

      _ ->
        entry.offset + entry.length
    end

    entries
  end
end
