import org.apache.spark.sql.SparkSession

object Words {
  def main(args: Array[String]): Unit = {
    val spark = SparkSession.builder().getOrCreate()
    val words = spark.sparkContext.textFile(args(0)).flatMap(_.split("\\s+"))
    val pairs = words.map((_, 1)).reduceByKey(_ + _)
    pairs.map(p => p._1 + " " + p._2).coalesce(1).saveAsTextFile(args(1))
    println("counted " + pairs.count())
    spark.stop()
  }
}

object Hello {
  def main(args: Array[String]): Unit = println("hello " + args.mkString("<", ",", ">"))
}
