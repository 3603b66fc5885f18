defmodule Mlx.Lowering.NarrowTest do
  use ExUnit.Case, async: true

  import Bitwise, only: [band: 2]

  @integers [u2: 2, u4: 4, s2: 2, s4: 4]

  defp mlx(values, type), do: Nx.tensor(values, type: type, backend: Mlx.Backend)

  # Nx.to_list/1 can't read parts of bytes.
  defp numbers(tensor), do: tensor |> Nx.as_type(:s32) |> Nx.to_list()

  # Nx.BinaryBackend can't compute with parts of bytes, so these are written out.
  defp wrap(value, <<kind::binary-size(1), bits::binary>>) do
    size = 2 ** String.to_integer(bits)
    rest = band(value, size - 1)
    if kind == "s" and rest >= div(size, 2), do: rest - size, else: rest
  end

  for {type, bits} <- @integers do
    test "#{type} is packed in binaries as Nx.BinaryBackend packs it" do
      values = for i <- 0..7, do: wrap(i * 3 - 5, "#{unquote(type)}")
      binary = Nx.to_binary(Nx.tensor(values, type: unquote(type), backend: Nx.BinaryBackend))
      assert byte_size(binary) == unquote(bits)
      assert Nx.to_binary(mlx(values, unquote(type))) == binary
      assert numbers(Nx.from_binary(binary, unquote(type), backend: Mlx.Backend)) == values
    end

    test "#{type} wraps" do
      a = for i <- 0..7, do: wrap(i * 5 + 1, "#{unquote(type)}")
      b = for i <- 0..7, do: wrap(i * 3 - 2, "#{unquote(type)}")

      for {op, fun} <- [add: &+/2, subtract: &-/2, multiply: &*/2] do
        tensor = apply(Nx, op, [mlx(a, unquote(type)), mlx(b, unquote(type))])
        assert tensor.type == Nx.Type.normalize!(unquote(type))
        expected = Enum.zip_with(a, b, &wrap(fun.(&1, &2), "#{unquote(type)}"))
        assert numbers(tensor) == expected, "#{op}"
      end
    end

    test "#{type} is part of a byte at the end" do
      tensor = mlx([1, 0, 1], unquote(type))
      assert bit_size(Nx.to_binary(tensor)) == 3 * unquote(bits)
      assert numbers(tensor) == [1, 0, 1]
    end

    test "#{type} keeps the bits of its own when cast" do
      values = [300, -1, 7, 2, 1, 0, -8, 5]
      expected = Enum.map(values, &wrap(&1, "#{unquote(type)}"))
      assert numbers(Nx.as_type(mlx(values, :s32), unquote(type))) == expected
    end
  end

  test "integers of the same width are cast bit by bit" do
    assert numbers(Nx.bitcast(mlx([15, 7, 8, 0], :u4), :s4)) == [-1, 7, -8, 0]
    assert numbers(Nx.bitcast(mlx([-1, -2, 1, 0], :s2), :u2)) == [3, 2, 1, 0]
  end

  test "functions fold and cast bit by bit" do
    sum = &Nx.reduce(&1, Nx.as_type(0, Nx.type(&1)), fn x, acc -> Nx.add(x, acc) end)

    for {type, expected} <- [f8: 6.0, f8_e4m3fn: 6.0, u4: 6, s4: 6] do
      folded = sum.(mlx([1, 2, 3], type))
      assert {Nx.type(folded), Nx.to_number(folded)} == {Nx.Type.normalize!(type), expected}
    end

    bits = fn x, acc -> x |> Nx.as_type(:f8) |> Nx.bitcast(:u8) |> Nx.add(acc) end
    assert Nx.to_number(Nx.reduce(mlx([1, 2], :u8), mlx(0, :u8), bits)) == 0x3C + 0x40
  end

  test "sums don't wrap inside" do
    assert Nx.to_number(Nx.sum(mlx(List.duplicate(15, 100), :u4))) == 1500
    assert Nx.to_number(Nx.sum(mlx(List.duplicate(-8, 100), :s4))) == -800
  end

  for type <- [:f8, :f8_e4m3fn] do
    test "every #{type} goes in and out unchanged" do
      # Nx writes one of the patterns for NaN.
      bytes = for byte <- 0..255, finite?(unquote(type), byte), into: <<>>, do: <<byte>>
      tensor = Nx.from_binary(bytes, unquote(type), backend: Mlx.Backend)
      assert Nx.to_binary(tensor) == bytes
      assert Nx.to_binary(Nx.bitcast(tensor, :u8)) == bytes
      assert Nx.to_binary(Nx.bitcast(Nx.bitcast(tensor, :u8), unquote(type))) == bytes
    end

    test "#{type} rounds as Nx.BinaryBackend does" do
      numbers = for i <- -60..60, do: i * abs(i) / 17
      expected = Nx.tensor(numbers, type: unquote(type), backend: Nx.BinaryBackend)
      assert Nx.to_binary(mlx(numbers, unquote(type))) == Nx.to_binary(expected)
      cast = Nx.as_type(mlx(numbers, :f32), unquote(type))
      assert Nx.to_binary(cast) == Nx.to_binary(expected)
    end

    test "#{type} is rounded after each operation" do
      numbers = [1.0, 1.25, 3.0, -2.5, 0.75, 24.0]

      for fun <- [&Nx.add/2, &Nx.multiply/2, &Nx.subtract/2, &Nx.max/2] do
        [got, expected] =
          for backend <- [Mlx.Backend, Nx.BinaryBackend] do
            a = Nx.tensor(numbers, type: unquote(type), backend: backend)
            Nx.to_binary(fun.(a, Nx.reverse(a)))
          end

        assert got == expected
      end
    end
  end

  test "NaN and infinities" do
    specials = [:nan, :infinity, :neg_infinity]
    assert Nx.to_list(mlx(specials, :f8)) == specials
    assert Nx.to_list(mlx(specials, :f8_e4m3fn)) == [:nan, 448.0, -448.0]
  end

  test "a binary of another size is refused" do
    assert_raise Mlx.Error, ~r/u4\{3\} has 12 bits, the binary has 8/, fn ->
      Mlx.from_binary(<<1>>, {3}, :u4)
    end
  end

  defp finite?(:f8, byte), do: band(byte, 0x7C) != 0x7C
  defp finite?(:f8_e4m3fn, byte), do: band(byte, 0x7F) != 0x7F
end
