defmodule Mlx.NativeFuzz.Terms do
  @moduledoc """
  Random terms: any at all, and those that look like what the engine takes.
  """

  @edges [-2_147_483_649, -2_147_483_648, 2_147_483_647, 2_147_483_648, 4_294_967_296] ++
           [-9_223_372_036_854_775_808, 9_223_372_036_854_775_807, 2 ** 63, 2 ** 64, -(2 ** 70)]

  @types [u: 8, u: 16, u: 32, u: 64, s: 8, s: 16, s: 32, s: 64] ++
           [f: 16, f: 32, f: 64, bf: 16, c: 64]

  @shapes [[], [], [0], [1], [3], [4], [2, 3], [3, 3], [4, 4], [2, 0], [1, 3], [3, 1]] ++
            [[2, 2, 2], [2, 3, 3], [1, 3, 1], [0, 3, 3], [2, 1, 4, 3], [1, 1, 2, 1, 2], [70]]

  def types, do: @types
  def shapes, do: @shapes

  def one(list), do: Enum.at(list, :rand.uniform(length(list)) - 1)
  def chance(percent), do: :rand.uniform(100) <= percent
  def below(count), do: :rand.uniform(count) - 1

  @doc """
  Any term; `leaves` are terms that only the engine makes.
  """
  def term(leaves, depth \\ 3) do
    case below(if depth > 0, do: 14, else: 10) do
      0 -> integer()
      1 -> below(5)
      2 -> one([1.5, -0.0, 1.0e308, 1])
      3 -> one([true, false, nil, :cpu, :tpu, :add, :u, :f, :"", :while])
      4 -> :rand.bytes(below(20))
      5 -> <<below(8)::3>>
      6 -> one([self(), make_ref(), &Kernel.+/2, %{}, [1 | 2]])
      7 -> one(@types)
      _ when depth == 0 -> one(leaves)
      8 -> one(leaves)
      9 -> []
      10 -> %{a: term(leaves, depth - 1)}
      at when at in [11, 12] -> for _ <- 1..below(5)//1, do: term(leaves, depth - 1)
      13 -> List.to_tuple(for _ <- 1..below(4)//1, do: term(leaves, depth - 1))
    end
  end

  @doc """
  A term in which a random part is another one.
  """
  def mutated(term, leaves) do
    cond do
      chance(25) -> term(leaves)
      is_list(term) and term != [] and List.improper?(term) == false -> in_list(term, leaves)
      is_tuple(term) and tuple_size(term) > 0 -> in_tuple(term, leaves)
      true -> term(leaves)
    end
  end

  defp in_list(list, leaves) do
    at = below(length(list))

    case below(6) do
      0 -> List.delete_at(list, at)
      1 -> List.insert_at(list, at, term(leaves))
      _ -> List.update_at(list, at, &mutated(&1, leaves))
    end
  end

  defp in_tuple(tuple, leaves) do
    at = below(tuple_size(tuple))
    put_elem(tuple, at, mutated(elem(tuple, at), leaves))
  end

  def integer, do: if(chance(50), do: one(@edges), else: below(2000) - 1000)

  @doc """
  An integer as attributes have them; seldom one out of any range.
  """
  def small, do: if(chance(4), do: integer(), else: below(7) - 1)

  def smalls(count), do: for(_ <- 1..count//1, do: small())

  def type, do: if(chance(3), do: one(f: 8, u: 1, c: 128, s: 2, bf: 32), else: one(@types))

  @doc """
  Bytes of so many elements: any bits, or small numbers.
  """
  def bytes({kind, bits}, count) do
    case below(3) do
      0 -> :rand.bytes(div(bits, 8) * count)
      _ -> for _ <- 1..count//1, into: <<>>, do: element(kind, bits, below(5) - 1)
    end
  end

  defp element(:f, bits, n), do: <<n::float-size(bits)-native>>
  defp element(:c, 64, n), do: <<n::float-32-native, n::float-32-native>>
  defp element(:bf, 16, n), do: binary_part(<<n::float-32-big>>, 0, 2) |> swap()
  defp element(_, bits, n), do: <<n::size(bits)-native>>

  defp swap(<<a, b>>), do: if(System.endianness() == :little, do: <<b, a>>, else: <<a, b>>)
end
